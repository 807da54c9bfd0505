"""JSON Schema of kumodr.yaml, for editors and for people."""

from typing import Any

from kumodr.plan.model import SECONDS, Plan
from kumodr.plan.shape import fields_of


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the plan, each key explained, durations as text or number."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Plan).json_schema()
    _explain(Plan, schema, schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kumodr.yaml"} | schema


def _explain(shape: type, schema: dict[str, Any], root: dict[str, Any]) -> None:
    for field in fields_of(shape):
        key = schema["properties"][field.name]
        if field.text:
            key["description"] = field.text
        if SECONDS in field.marks:
            key.pop("type", None)
            duration = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(s|m|min|h|d)?$"}
            key["anyOf"] = [{"type": "number", "exclusiveMinimum": 0}, duration]
        if field.nested:
            _explain(field.nested, root["$defs"][field.nested.__name__], root)
