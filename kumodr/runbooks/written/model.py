"""The shape of a runbook file: the single source of its validation, its JSON Schema and its sample."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from kumodr.plan.validate import seconds_of

_STRICT = {"extra": "forbid"}
NAME = r"^[a-z][a-z0-9-]{0,29}$"


def _seconds(value: Any) -> float:
    found = seconds_of(value)
    if found is None or found > 30 * 86400:
        raise ValueError("is no duration of at most 30 days; write it like 15m, 2h or 300")
    return found


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
Word = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
Words = Annotated[list[Word], Field(min_length=1, max_length=200)]
Question = Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True)
class Http:
    """One HTTP request. Redirects are not followed."""

    __pydantic_config__: ClassVar = _STRICT
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000, description="without a password")]
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE"] = "GET"
    status: Annotated[int, Field(description="the answer's status that is right")] = 200
    contains: Annotated[str | None, Field(description="text that the answer must hold")] = None


@dataclass(frozen=True)
class Action:
    """Something that is done or asked, in one of three ways."""

    __pydantic_config__: ClassVar = _STRICT
    kumodr: Annotated[Words | None, Field(description="a verb of kumodr, as a list of words")] = None
    command: Annotated[Words | None, Field(description="a program and its arguments, as a list; no shell")] = None
    http: Http | None = None


@dataclass(frozen=True)
class Part:
    """One step. Exactly one of kumodr, command, http and ask says what it does."""

    __pydantic_config__: ClassVar = _STRICT
    name: Annotated[str, Field(pattern=NAME)]
    why: Annotated[str, Field(max_length=500, description="what it is for, one sentence")] = ""
    kumodr: Annotated[Words | None, Field(description="a verb of kumodr, as a list of words")] = None
    command: Annotated[Words | None, Field(description="a program and its arguments, as a list; no shell")] = None
    http: Http | None = None
    ask: Annotated[Question | None, Field(description="a question that a person answers with yes or no")] = None
    already: Annotated[Action | None, Field(description="succeeds where nothing is to be done any more")] = None
    proof: Annotated[Action | None, Field(description="succeeds where the step did what it should")] = None
    undo: Annotated[Action | None, Field(description="done when the step fails and on_failure is undo")] = None
    confirm: Annotated[Question | None, Field(description="a question before the step, answered with yes")] = None
    repeatable: Annotated[
        bool | None, Field(description="doing it twice is as good as once; kumodr's verbs, GET and HEAD are")
    ] = None
    budget: Annotated[Seconds, Field(description="how long it is expected to take")] = 60.0
    limit: Annotated[Seconds | None, Field(description="when it is broken off; 10 times the budget")] = None
    on_failure: Literal["retry", "ask", "stop", "undo"] = "stop"
    attempts: Annotated[int, Field(ge=1, le=100, description="with on_failure: retry")] = 3


@dataclass(frozen=True)
class Written:
    """A runbook: kumodr runs its steps one after the other, and goes on after a crash."""

    __pydantic_config__: ClassVar = _STRICT
    version: Annotated[Literal[1], Field(description="of this file's format")]
    name: Annotated[str, Field(pattern=NAME)]
    steps: Annotated[list[Part], Field(min_length=1, max_length=200)]
    title: Annotated[str, Field(max_length=500)] = ""
    objective: Annotated[
        Literal["critical_services", "full_system", "data"] | None,
        Field(description="the objective of the plan that the whole is measured against"),
    ] = field(default=None)


SAMPLE = """\
# A runbook of your own: `kumodr runs start FILE`. Its steps run one after the other; `kumodr runs resume` goes on
# after a crash.
version: 1
name: maintenance
title: Take the mail site down for maintenance, and prove that it is back
steps:
  - name: announced
    ask: Do the customers know?
  - name: protected
    why: nothing is stopped that could not be brought back
    kumodr: [backup]
    budget: 5m
    on_failure: retry
  - name: stop-injector
    command: [systemctl, stop, injector]
    already: {command: [sh, -c, "! systemctl is-active --quiet injector"]}
    undo: {command: [systemctl, start, injector]}
    on_failure: undo
  - name: work
    ask: Is the work done?
  - name: start-injector
    command: [systemctl, start, injector]
    repeatable: true
  - name: serving
    http: {url: "http://127.0.0.1:8000/api/check-liveness/v1", status: 200}
    on_failure: retry
    attempts: 10
"""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a runbook file."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Written).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "a runbook of kumodr"} | schema
