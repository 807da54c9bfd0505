"""What a Lua text says, as a tree: expressions and statements, as far as a policy's settings need them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constant:
    """nil, true, false, a number or a string."""

    value: bool | int | float | str | None
    line: int


@dataclass(frozen=True, slots=True)
class Name:
    """A variable."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Index:
    """`table.key`, `table[key]`."""

    table: "Expression"
    key: "Expression"
    line: int


@dataclass(frozen=True, slots=True)
class Call:
    """`callee(arguments)`, or with a method `callee:method(arguments)`."""

    callee: "Expression"
    method: str | None
    arguments: tuple["Expression", ...]
    line: int


@dataclass(frozen=True, slots=True)
class Function:
    """A function's parameters and body."""

    parameters: tuple[str, ...]
    body: "Block"
    line: int


@dataclass(frozen=True, slots=True)
class Constructor:
    """`{ items, fields }`; a field is a pair of key and value."""

    items: tuple["Expression", ...]
    fields: tuple[tuple["Expression", "Expression"], ...]
    line: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its one or two operands."""

    sign: str
    operands: tuple["Expression", ...]
    line: int


Expression = Constant | Name | Index | Call | Function | Constructor | Operation


@dataclass(frozen=True, slots=True)
class Local:
    """`local names = values`; also `local function`."""

    names: tuple[str, ...]
    values: tuple[Expression, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Assign:
    """`targets = values`; also `function name() … end`."""

    targets: tuple[Expression, ...]
    values: tuple[Expression, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Do:
    """Expressions for their effect: calls, conditions of loops."""

    values: tuple[Expression, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Leave:
    """`return values`, `break` or `goto`: what stands behind may not come."""

    values: tuple[Expression, ...]
    line: int


@dataclass(frozen=True, slots=True)
class If:
    """Conditions with their blocks, and the block otherwise."""

    cases: tuple[tuple[Expression, "Block"], ...]
    otherwise: "Block"
    line: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Any loop or plain block. `names` and `over` are those of a `for … in`; `once` is a plain `do … end`."""

    names: tuple[str, ...]
    over: tuple[Expression, ...]
    body: "Block"
    once: bool
    line: int


Statement = Local | Assign | Do | Leave | If | Loop
Block = tuple[Statement, ...]
