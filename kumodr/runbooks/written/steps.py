"""A written runbook as steps of the engine."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.runbooks.step import Context, Outcome, Runbook, Step, Words
from kumodr.runbooks.written.model import Action, Http, Part, Written

_LARGEST_ANSWER = 1 << 20
_SAFE = ("GET", "HEAD")


@dataclass(frozen=True)
class _Place:
    """Where commands run, and the plan that kumodr's verbs are given."""

    directory: Path
    plan: str | None


def runbook_of_document(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> Runbook:
    """Given the values that `read_runbook` returned, and the run's parameters, return the runbook.

    Raise RunChanged where this version of kumodr reads them differently.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        written = TypeAdapter(Written).validate_python(dict(document))
    except ValidationError as error:
        raise errors.RunChanged("this version of kumodr does not know the runbook's form any more") from error
    place = _Place(Path(parameters["directory"]), parameters["plan"])
    steps = tuple(_step(part, place) for part in written.steps)
    return Runbook(written.name, written.title or written.name, steps, written.objective)


def _step(part: Part, place: _Place) -> Step:
    action = Action(part.kumodr, part.command, part.http)
    question = part.ask or part.confirm
    does = f"ask: {part.ask}" if part.ask else _told(action)
    already, proof, undo = part.already, part.proof, part.undo
    return Step(
        name=part.name,
        purpose=part.why or does,
        act=(lambda _context: Outcome("answered")) if part.ask else _doing(action, place),
        words=Words(
            act=does,
            check=_told(already) if already else "",
            proof=_told(proof) if proof else "",
            by_hand=() if part.ask else (_told(action),),
        ),
        check=_seeing(already, place) if already else None,
        proof=_doing(proof, place) if proof else None,
        preview=lambda _context: f"would {'' if part.ask else 'do: '}{does}",
        undo=_doing(undo, place) if undo else None,
        asks=(lambda _context: question) if question else None,
        budget=part.budget,
        limit=part.limit,
        on_failure=part.on_failure,
        attempts=part.attempts,
        repeatable=_is_repeatable(part),
    )


def _is_repeatable(part: Part) -> bool:
    """Whether doing it twice is as good as once, as far as it is known without being said."""
    if part.repeatable is not None:
        return part.repeatable
    return part.command is None and (part.http is None or part.http.method in _SAFE)


def _told(action: Action) -> str:
    if action.http is not None:
        return f"{action.http.method} {action.http.url} answers {action.http.status}"
    return " ".join(["kumodr", *action.kumodr] if action.kumodr else action.command or [])


def _seeing(action: Action, place: _Place) -> Callable[[Context], Outcome | None]:
    """Return what asks whether something is already so: that it fails is an answer."""
    do = _doing(action, place)

    def see(context: Context) -> Outcome | None:
        try:
            return do(context)
        except errors.StepFailed:
            return None

    return see


def _doing(action: Action, place: _Place) -> Callable[[Context], Outcome]:
    if action.http is not None:
        http = action.http
        return lambda context: _asked(http, context)
    if action.kumodr is not None:
        words = [*action.kumodr]
        if place.plan is not None and "--plan" not in words:
            words += ["--plan", place.plan]
        command = [sys.executable, "-m", "kumodr", *words]
        return lambda context: _run(command, f"kumodr {words[0]}", (0, errors.IMPERFECT), place, context)
    command = list(action.command or ())
    return lambda context: _run(command, command[0], (0,), place, context)


def _run(command: list[str], name: str, good: tuple[int, ...], place: _Place, context: Context) -> Outcome:
    """Run a command to its end. Raise StepFailed where it ends otherwise than it should."""
    environment = {**os.environ, "KUMODR_RUN": context.run}
    answer = context.runner(command, limit=context.left(), directory=place.directory, environment=environment)
    said = "\n".join(each for each in (_text(answer.out), _text(answer.err)) if each)
    if answer.code not in good:
        raise errors.StepFailed(f"{name} ended with {answer.code}{f': {_end(said)}' if said else ''}")
    warnings = (f"{name} is done, but imperfect",) if answer.code else ()
    return Outcome(said or f"{name} ended with {answer.code}", warnings=warnings)


def _asked(http: Http, context: Context) -> Outcome:
    """Put an HTTP request. Raise StepFailed where the answer is not the right one."""
    import httpx

    try:
        with (
            httpx.Client(follow_redirects=False, timeout=min(context.left(), 60.0)) as client,
            client.stream(http.method, http.url) as answer,
        ):
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > _LARGEST_ANSWER:
                    break
    except httpx.HTTPError as error:
        raise errors.StepFailed(f"{http.url} does not answer: {error or type(error).__name__}") from None
    text = bytes(body[:_LARGEST_ANSWER]).decode("utf-8", "replace")
    if answer.status_code != http.status:
        raise errors.StepFailed(f"{http.url} answers {answer.status_code}, not {http.status}")
    if http.contains is not None and http.contains not in text:
        raise errors.StepFailed(f"the answer of {http.url} does not hold {http.contains!r}")
    return Outcome(f"{http.url} answers {answer.status_code}" + (f": {text[:500]}" if text else ""))


def _text(data: bytes) -> str:
    return data[-8192:].decode("utf-8", "replace").strip()


def _end(text: str) -> str:
    return text[-500:]
