"""What an expression of a policy is known to be: a plain value, a table, a function, or not known."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kumodr.discover.lua.tree import Function


@dataclass(frozen=True)
class Unknown:
    """Not known from the text alone. `prefix` is how the string surely begins, empty where even that is not known."""

    prefix: str = ""


@dataclass
class Table:
    """A table. `known` is false once something was done to it that was not followed."""

    items: list["Value"] = field(default_factory=list["Value"])
    fields: dict[str, "Value"] = field(default_factory=dict[str, "Value"])
    known: bool = True

    def get(self, key: str) -> "Value":
        """Given a field's name, return its value; nil (None) where there is none, Unknown where nobody can tell."""
        return self.fields.get(key) if self.known else Unknown()


@dataclass(frozen=True)
class Closure:
    """A function with the variables around it, and the file that it stands in."""

    function: Function
    scopes: tuple[dict[str, "Value"], ...]
    file: str


@dataclass(frozen=True)
class Library:
    """Something of Lua or of KumoMTA, by its dotted path: `kumo.define_spool`."""

    path: str


Value = None | bool | int | float | str | Unknown | Table | Closure | Library


@dataclass(frozen=True)
class Said:
    """A call that the text makes: of what, with which arguments, in which file and line.

    `certain` is false where it stands under a condition, or in a loop, that the text alone does not decide.
    """

    path: str
    arguments: tuple[Value, ...]
    file: str
    line: int
    certain: bool


def truth(value: Value) -> bool | None:
    """Given a value, return whether Lua takes it for true, None where that is not known."""
    if isinstance(value, Unknown):
        return None
    return value is not None and value is not False


def joined(left: Value, right: Value, longest: int = 4096) -> Value:
    """Given two operands of `..`, return the string, or how it surely begins."""
    if not isinstance(left, (str, int, float)) or isinstance(left, bool):
        return left if isinstance(left, Unknown) else Unknown()
    if isinstance(right, (str, int, float)) and not isinstance(right, bool):
        text = f"{left}{right}"
        return text if len(text) <= longest else Unknown()
    return Unknown(f"{left}{right.prefix if isinstance(right, Unknown) else ''}"[:longest])


def formatted(arguments: tuple[Value, ...]) -> Value:
    """Given the arguments of string.format, return the string where only %s and %d of known values are in it."""
    if not arguments or not isinstance(arguments[0], str):
        return Unknown()
    whole: Value = ""
    rest, values = arguments[0], list(arguments[1:])
    while "%" in rest:
        before, _, rest = rest.partition("%")
        whole = joined(whole, before)
        if rest[:1] == "%":
            whole, rest = joined(whole, "%"), rest[1:]
        elif rest[:1] in ("s", "d") and values:
            whole, rest = joined(whole, values.pop(0)), rest[1:]
        else:
            return joined(whole, Unknown())
        if isinstance(whole, Unknown):
            return whole
    return joined(whole, rest)


def variable(environment: Mapping[str, str] | None, arguments: tuple[Value, ...]) -> Value:
    """Given the environment (None: not known) and the arguments of os.getenv, return what it gives."""
    if environment is None or not arguments or not isinstance(arguments[0], str):
        return Unknown()
    return environment.get(arguments[0])
