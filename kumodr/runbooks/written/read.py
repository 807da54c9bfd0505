"""Read a runbook file, and say every mistake at once, each with its line."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kumodr import errors
from kumodr.plan.document import Document, Place, read_document
from kumodr.runbooks.written.model import Part, Written

_LARGEST = 1 << 20
_NO_VERBS = ("runs", "recover", "protect")
"""Verbs that would wait for this very run, or never end."""


def read_runbook(file: Path) -> dict[str, Any]:
    """Given a runbook's file, return its checked values. Raise RunbookInvalid with every mistake, RunbookMissing."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise errors.RunbookMissing(f"the runbook {file} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise errors.RunbookInvalid(f"the runbook {file} is larger than 1 MiB", ("line 1: this is no runbook",))
    document = read_document(data.decode("utf-8", "replace"))
    written, mistakes = checked(document)
    if written is None or mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise errors.RunbookInvalid(f"the runbook {file} has {count}", tuple(mistakes))
    return asdict(written)


def checked(document: Document) -> tuple[Written | None, list[str]]:
    """Given a document, return the runbook, None where it is none, and every mistake in the order of lines."""
    if not isinstance(document.values, dict):
        return None, ["line 1: a runbook is a mapping; `kumodr runs sample` prints one"]
    if document.mistakes:
        return None, list(document.mistakes)
    try:
        written = TypeAdapter(Written).validate_python(document.values)
    except ValidationError as error:
        found = [(tuple(each["loc"]), each["msg"]) for each in error.errors(include_url=False, include_input=False)]
        return None, _lines(document, [(place, f"{_dotted(place)}: {text}") for place, text in found])
    return written, _lines(document, list(_meaningless(written)))


def _meaningless(written: Written) -> Iterator[tuple[Place, str]]:
    seen: set[str] = set()
    for number, part in enumerate(written.steps):
        place: Place = ("steps", number)
        if part.name in seen or part.name == "run":
            yield place, f"the step name {part.name} is taken; give each step a name of its own"
        seen.add(part.name)
        ways = [name for name in ("kumodr", "command", "http", "ask") if getattr(part, name) is not None]
        if len(ways) != 1:
            has = f"has {' and '.join(ways)}" if ways else "has none of them"
            yield place, f"step {part.name} {has}; give exactly one of kumodr, command, http and ask"
        if part.on_failure == "undo" and part.undo is None:
            yield place, f"step {part.name} is to be undone on failure, and does not say how; give undo"
        if part.ask is not None and part.confirm is not None:
            yield place, f"step {part.name} asks already; leave confirm out"
        yield from ((place, text) for text in _actions(part))


def _actions(part: Part) -> Iterator[str]:
    from kumodr.cli.main import VERBS

    actions = {"already": part.already, "proof": part.proof, "undo": part.undo}
    for name, action in actions.items():
        if action is not None and sum(each is not None for each in (action.kumodr, action.command, action.http)) != 1:
            yield f"{name} of step {part.name}: give exactly one of kumodr, command and http"
    for words in (part.kumodr, *(action.kumodr for action in actions.values() if action is not None)):
        if words is not None and (words[0] not in VERBS or words[0] in _NO_VERBS):
            allowed = ", ".join(verb for verb in VERBS if verb not in _NO_VERBS)
            yield f"step {part.name}: kumodr {words[0]!r} cannot be a step; choose from: {allowed}"


def _lines(document: Document, found: list[tuple[Place, str]]) -> list[str]:
    numbered = sorted((document.line(place), text) for place, text in found)
    return [f"line {line}: {text}" for line, text in numbered]


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place) or "the runbook"
