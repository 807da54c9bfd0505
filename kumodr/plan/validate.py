"""Every mistake of a plan at once, each with its line and what to write instead."""

import difflib
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from kumodr.plan.document import Document, Place
from kumodr.plan.model import PATH, SECONDS, Plan
from kumodr.plan.shape import fields_of

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
_UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*(-[A-Za-z][A-Za-z0-9_.]*)*")


def validated(document: Document, folder: str) -> tuple[dict[str, Any], list[str]]:
    """Given a document and the plan's folder, return its values with paths absolute and durations in seconds, and
    every mistake, in the order of lines.
    """
    if not isinstance(document.values, dict):
        return {}, ["line 1: a plan is a mapping; `kumodr plan sample` prints one"]
    found: list[tuple[int, str]] = []
    values = _prepared(Plan, document.values, (), document, folder, found)
    try:
        TypeAdapter(Plan).validate_python(values)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=True):
            place = tuple(each["loc"])
            found.append((document.line(place), _sentence(place, each)))
    found += [(document.line(place), text) for place, text in _secrets(values)]
    found += [(document.line(("runtime", "kind")), text) for text in _runtime(values.get("runtime"))]
    found += [(document.line(place), text) for place, text in _of_a_service(values)]
    found += [(document.line(("runbooks", "state")), text) for text in _runbooks(values.get("runbooks"))]
    site = values.get("site")
    if isinstance(site, str) and not _NAME.fullmatch(site):
        found.append((document.line(("site",)), f"site {site!r} cannot name points; use letters, like 'primary'"))
    return values, [*document.mistakes, *(f"line {line}: {text}" for line, text in sorted(found))]


def _prepared(
    shape: type, values: Any, place: Place, document: Document, folder: str, found: list[tuple[int, str]]
) -> Any:
    """Return the values with durations and paths resolved; what is not understood is left for the validation."""
    if not isinstance(values, dict):
        return values
    prepared = dict(values)
    for field in fields_of(shape):
        value = values.get(field.name)
        here = (*place, field.name)
        if value is None:
            continue
        if field.nested:
            prepared[field.name] = _prepared(field.nested, value, here, document, folder, found)
        elif SECONDS in field.marks:
            seconds = seconds_of(value)
            if seconds is None:
                text = f"{_dotted(here)}: {value!r} is no duration; write it like 15m, 2h or 300"
                found.append((document.line(here), text))
            prepared[field.name] = 0.0 if seconds is None else seconds
        elif PATH in field.marks:
            if isinstance(value, str):
                prepared[field.name] = _absolute(value, folder)
            elif isinstance(value, list):
                prepared[field.name] = [_absolute(each, folder) if isinstance(each, str) else each for each in value]
    return prepared


def seconds_of(value: Any) -> float | None:
    """Given a duration as it stands in the file, return seconds, or None where it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if value > 0 else None
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match and float(match[1]) > 0 else None


def _absolute(value: str, folder: str) -> str:
    if not value or "://" in value:
        return value
    return os.path.normpath(os.path.join(folder, os.path.expanduser(value)))


def _sentence(place: Place, error: Any) -> str:
    name = _dotted(place)
    if error["type"] == "unexpected_keyword_argument":
        known = [field.name for field in fields_of(_shape_at(place[:-1]))]
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{name} is not known; {hint}"
    if error["type"] == "missing":
        text = next((field.text for field in fields_of(_shape_at(place[:-1])) if field.name == place[-1]), "")
        return f"{name} is missing{'; it is ' + text if text else ''}"
    if error["type"] == "literal_error":
        return f"{name}: {error['input']!r} is not allowed; choose {error['ctx']['expected']}"
    return f"{name}: {error['msg'].replace('Input should be', 'should be').replace('instance of ', '')}"


def _runbooks(values: Any) -> Iterator[str]:
    """Yield why runs cannot be kept at the address that the plan names."""
    state = values.get("state") if isinstance(values, dict) else None
    if isinstance(state, str):
        parts = urlsplit(state)
        try:
            well_formed = parts.port is None or parts.port > 0
        except ValueError:
            well_formed = False
        if parts.scheme != "postgresql" or not parts.hostname or not parts.path.strip("/") or not well_formed:
            yield "runbooks.state is no address like postgresql://USER@HOST/DATABASE"
        if "password" in parts.query:
            yield "runbooks.state holds a password; take it out and use password_file or password_env"


def _shape_at(place: Place) -> type:
    shape: type = Plan
    for part in place:
        shape = next((field.nested for field in fields_of(shape) if field.name == part and field.nested), shape)
    return shape


def _secrets(values: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield each address with a password in it: a plan is not the place for secrets."""
    items: Any = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from _secrets(value, (*place, key))
        elif isinstance(value, str) and "://" in value and urlsplit(value).password is not None:
            yield (
                (*place, key),
                f"{_dotted((*place, key))} holds a password; take it out and use password_file or password_env",
            )


def _runtime(values: Any) -> Iterator[str]:
    """Yield what a kind of runtime needs and is not said."""
    runtime: dict[str, Any] = values if isinstance(values, dict) else {}
    kind = runtime.get("kind", "none")
    if kind in ("compose", "process") and not runtime.get("directory"):
        yield f"runtime.directory is missing: kind {kind} needs to know the folder"
    if kind in ("compose", "systemd", "process") and not runtime.get("kumod"):
        yield f"runtime.kumod is missing: which {'unit' if kind == 'systemd' else 'service'} is the mail server"


def _of_a_service(values: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield what a component needs of the runtime and is not said there."""
    parts, runtime = values.get("components"), values.get("runtime")
    components: dict[str, Any] = parts if isinstance(parts, dict) else {}
    named: dict[str, Any] = runtime if isinstance(runtime, dict) else {}
    redis, prometheus = components.get("redis"), components.get("prometheus")
    if isinstance(redis, dict) and redis.get("through") == "exec" and not named.get("redis"):
        yield ("components", "redis", "through"), "runtime.redis is missing: in which service redis-cli shall be run"
    if isinstance(redis, dict) and bool(redis.get("certificate")) != bool(redis.get("key")):
        yield ("components", "redis"), "components.redis needs both certificate and key, or none of them"
    if isinstance(prometheus, dict) and prometheus.get("through") == "exec" and not named.get("prometheus"):
        text = "runtime.prometheus is missing: in which service wget shall be run"
        yield ("components", "prometheus", "through"), text
    if isinstance(prometheus, dict) and not prometheus.get("data") and not named.get("prometheus"):
        yield ("components", "prometheus"), "components.prometheus.data is missing; it is its storage.tsdb.path"
    if components.get("images") is not None and named.get("kind", "none") == "none":
        yield ("components", "images"), "components.images needs runtime.kind: whose images"


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place) or "the plan"
