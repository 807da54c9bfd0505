"""The plan's dataclasses looked at from outside: their fields, and building them from plain values."""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any


@dataclass(frozen=True)
class Field:
    """One key: its name, the nested dataclass if it is one, its default, its marks and explanation."""

    name: str
    nested: type | None
    required: bool
    default: Any
    marks: tuple[str, ...]
    text: str


def fields_of(shape: type) -> Iterator[Field]:
    """Given one of the plan's dataclasses, yield its keys in order."""
    hints = typing.get_type_hints(shape, include_extras=True)
    for each in dataclasses.fields(shape):
        hint, marks = hints[each.name], tuple[str, ...]()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *extras = typing.get_args(hint)
            marks = tuple(extras)
        parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
        bare = next(part for part in parts if part is not NoneType)
        factory = each.default_factory
        default = each.default if factory is dataclasses.MISSING else factory()
        texts = [mark for mark in marks if not mark.startswith("<")]
        yield Field(
            name=each.name,
            nested=bare if dataclasses.is_dataclass(bare) and isinstance(bare, type) else None,
            required=default is dataclasses.MISSING,
            default=None if default is dataclasses.MISSING else default,
            marks=marks,
            text=texts[0] if texts else "",
        )


def build(shape: type, values: dict[str, Any]) -> Any:
    """Given a dataclass of the plan and plain values that were validated before, return the dataclass."""
    arguments: dict[str, Any] = {}
    for each in fields_of(shape):
        if each.name in values:
            value = values[each.name]
            if each.nested and value is not None:
                value = build(each.nested, value)
            arguments[each.name] = tuple(value) if isinstance(value, list) else value
    return shape(**arguments)
