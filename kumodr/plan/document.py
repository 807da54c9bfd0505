"""A YAML file as plain values, with the line of every key. No objects, no aliases, no double keys."""

from dataclasses import dataclass
from typing import Any

import yaml

Place = tuple[str | int, ...]

_DEEPEST = 20


@dataclass(frozen=True)
class Document:
    """Plain values, the line (from 1) of every place in them, and what is wrong with the file itself."""

    values: Any
    lines: dict[Place, int]
    mistakes: tuple[str, ...]

    def line(self, place: Place) -> int:
        """Given a place, return its line, or that of the nearest place around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_document(text: str) -> Document:
    """Given YAML text, return its values. What is no YAML becomes a mistake with its line."""
    lines: dict[Place, int] = {}
    mistakes: list[str] = []
    seen: set[int] = set()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)

    def convert(node: Any, place: Place) -> Any:
        line = node.start_mark.line + 1
        lines.setdefault(place, line)
        if id(node) in seen or len(place) > _DEEPEST:
            mistakes.append(f"line {line}: aliases and deep nesting are not used in a plan; write the value out")
            return None
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                if key in found:
                    mistakes.append(f"line {key_node.start_mark.line + 1}: {key} stands there twice; keep one")
                lines[(*place, key)] = key_node.start_mark.line + 1
                found[key] = convert(value_node, (*place, key))
            return found
        if isinstance(node, yaml.SequenceNode):
            return [convert(each, (*place, number)) for number, each in enumerate(node.value)]
        return loader.construct_object(node)

    try:
        node = loader.get_single_node()
        values = convert(node, ()) if node is not None else {}
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it is no YAML"
        return Document({}, {}, (f"line {mark.line + 1 if mark else 1}: {problem}",))
    finally:
        loader.dispose()
    return Document(values, lines, tuple(mistakes))
