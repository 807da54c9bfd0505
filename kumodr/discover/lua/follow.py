"""Following a policy's text without running it: which calls it makes, with which settings, as far as the text says.

Only what follows from the text is taken for known: constants, variables that are set once, tables, concatenation, the
environment, loops over tables that are written out, functions of the policy itself. Everything else is `Unknown`, and
so is what an unknown call was given to change. Both branches of a condition that is not known are followed, and what
they say is not certain. Work is bounded: by steps, and by depth.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kumodr.discover.lua import values
from kumodr.discover.lua.tokens import NotLua
from kumodr.discover.lua.tree import (
    Assign,
    Block,
    Call,
    Constant,
    Constructor,
    Do,
    Expression,
    Function,
    If,
    Index,
    Leave,
    Local,
    Loop,
    Name,
    Operation,
    Statement,
)
from kumodr.discover.lua.values import Closure, Library, Said, Table, Unknown, Value

_MOST_STEPS = 200_000
_DEEPEST = 100
_DEEPEST_CALL = 8
_LIBRARIES = frozenset(
    [
        "kumo",
        "os",
        "string",
        "table",
        "math",
        "io",
        "utf8",
        "ipairs",
        "pairs",
        "require",
        "tostring",
        "print",
        "pcall",
        "error",
        "dofile",
        "loadfile",
    ]
)
_HARMLESS = ("kumo", "redis", "print", "tostring", "ipairs", "pairs", "error")
"""What does not change a table that it is given."""


class Follower:
    """Follows one policy and the files that it requires."""

    def __init__(self, environment: Mapping[str, str] | None, required: Callable[[str], "tuple[str, Block] | None"]):
        """Given the mail server's environment (None: not known) and what finds a required file, by its name."""
        self.said: list[Said] = []
        self._environment, self._required = environment, required
        self._modules: dict[str, Value] = {}
        self._later: list[Closure] = []
        self._file, self._changing = "", frozenset[str]()
        self._steps = self._depth = self._calls = self._doubts = 0

    def follow(self, file: str, block: Block) -> None:
        """Given a file's name and statements, follow it, then the handlers of events that it names. Raise NotLua."""
        self._module(file, block)
        while self._later:
            self._call(self._later.pop(0), ())

    def _module(self, file: str, block: Block) -> Value:
        before, self._file = self._file, file
        self._changing |= _changing(block)
        found = self._body(block, ({},))
        self._file = before
        return found

    def _body(self, block: Block, scopes: tuple[dict[str, Value], ...]) -> Value:
        """Follow a function's or file's statements; return what it returns where that is certain."""
        doubts = self._doubts
        left = self._block(block, scopes)
        sure = self._doubts == doubts
        self._doubts = doubts
        return left[0] if left and sure else None if sure else Unknown()

    def _block(self, block: Block, scopes: tuple[dict[str, Value], ...]) -> tuple[Value] | None:
        """Follow statements; return what is given back where they are surely left before their end, else None."""
        self._depth += 1
        left = None
        for statement in block:
            self._step(statement.line)
            if self._depth > _DEEPEST:
                raise NotLua(statement.line, "it is nested too deeply")
            left = self._statement(statement, scopes)
            if left is not None:
                break
        self._depth -= 1
        return left

    def _statement(self, statement: Statement, scopes: tuple[dict[str, Value], ...]) -> tuple[Value] | None:
        match statement:
            case Local(names, given, _):
                if len(given) == 1 and isinstance(given[0], Function):
                    scopes[-1][names[0]] = None
                found = [self._value(each, scopes) for each in given]
                open_ended = bool(given) and isinstance(given[-1], Call)
                for number, name in enumerate(names):
                    missing = Unknown() if open_ended else None
                    value = found[number] if number < len(found) else missing
                    scopes[-1][name] = Unknown() if name in self._changing else value
            case Assign(targets, given, _):
                found = [self._value(each, scopes) for each in given]
                for number, target in enumerate(targets):
                    value = found[number] if number < len(found) else Unknown()
                    self._assign(target, value, scopes)
            case Do(given, _):
                for each in given:
                    self._value(each, scopes)
            case Leave(given, _):
                found = [self._value(each, scopes) for each in given]
                return (found[0] if found else None,)
            case If():
                return self._if(statement, scopes)
            case Loop():
                return self._loop(statement, scopes)
        return None

    def _assign(self, target: Expression, value: Value, scopes: tuple[dict[str, Value], ...]) -> None:
        if isinstance(target, Name):
            scope = next((each for each in reversed(scopes) if target.name in each), scopes[0])
            scope[target.name] = Unknown() if target.name in self._changing or self._doubts else value
        elif isinstance(target, Index):
            table, key = self._value(target.table, scopes), self._value(target.key, scopes)
            if isinstance(table, Table):
                if isinstance(key, str) and not self._doubts:
                    table.fields[key] = value
                else:
                    table.known = False

    def _if(self, statement: If, scopes: tuple[dict[str, Value], ...]) -> tuple[Value] | None:
        doubtful = False
        branches: list[Block] = []
        for condition, block in (*statement.cases, (Constant(True, statement.line), statement.otherwise)):
            holds = values.truth(self._value(condition, scopes))
            if holds is False:
                continue
            branches.append(block)
            if holds:
                break
            doubtful = True
        if not doubtful:
            return self._block(branches[0], (*scopes, {}))
        return self._in_doubt(branches, scopes)

    def _in_doubt(self, blocks: list[Block], scopes: tuple[dict[str, Value], ...]) -> None:
        self._doubts += 1
        left = [self._block(block, (*scopes, {})) for block in blocks]
        # Where a branch leaves, everything behind it is as doubtful; `_body` and `_loop` end that doubt.
        self._doubts -= not any(left)

    def _loop(self, loop: Loop, scopes: tuple[dict[str, Value], ...]) -> tuple[Value] | None:
        if loop.once:
            return self._block(loop.body, (*scopes, {}))
        rounds = self._rounds(loop, scopes)
        if rounds is None:
            self._in_doubt([loop.body], (*scopes, dict.fromkeys(loop.names, Unknown())))
            return None
        for each in rounds:
            scope = {name: each[number] if number < 2 else None for number, name in enumerate(loop.names)}
            if self._block(loop.body, (*scopes, scope)) is not None:
                self._doubts += 1
                break
        return None

    def _rounds(self, loop: Loop, scopes: tuple[dict[str, Value], ...]) -> list[tuple[Value, Value]] | None:
        over = loop.over[0] if len(loop.over) == 1 else None
        if isinstance(over, Call) and isinstance(over.callee, Name) and over.callee.name in ("ipairs", "pairs"):
            table = self._value(over.arguments[0], scopes) if over.arguments else None
            if isinstance(table, Table) and table.known:
                items: list[tuple[Value, Value]] = list(enumerate(table.items, 1))
                return items + (list(table.fields.items()) if over.callee.name == "pairs" else [])
            return None
        for each in loop.over:
            self._value(each, scopes)
        return None

    def _value(self, expression: Expression, scopes: tuple[dict[str, Value], ...]) -> Value:
        self._step(expression.line)
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                return Unknown()
            match expression:
                case Constant(value, _):
                    return value
                case Name(name, _):
                    scope = next((each for each in reversed(scopes) if name in each), None)
                    if scope is not None:
                        return scope[name]
                    return Library(name) if name in _LIBRARIES else Unknown()
                case Index(table, key, _):
                    return self._indexed(self._value(table, scopes), self._value(key, scopes))
                case Function():
                    return Closure(expression, scopes, self._file)
                case Constructor(items, fields, _):
                    made = Table([self._value(each, scopes) for each in items])
                    for name, value in fields:
                        key, given = self._value(name, scopes), self._value(value, scopes)
                        made.known = made.known and not isinstance(key, Unknown)
                        made.fields[str(key)] = given
                    return made
                case Operation(sign, operands, _):
                    return self._operation(sign, operands, scopes)
                case Call():
                    return self._called(expression, scopes)
        finally:
            self._depth -= 1

    def _indexed(self, table: Value, key: Value) -> Value:
        if isinstance(table, Library) and isinstance(key, str):
            return Library(f"{table.path}.{key}")
        if isinstance(table, Table) and table.known:
            if isinstance(key, str):
                return table.get(key)
            if isinstance(key, int) and 1 <= key <= len(table.items):
                return table.items[key - 1]
        return Unknown()

    def _operation(self, sign: str, operands: tuple[Expression, ...], scopes: tuple[dict[str, Value], ...]) -> Value:
        left = self._value(operands[0], scopes)
        if sign in ("and", "or"):
            holds = values.truth(left)
            if holds is None:
                self._in_doubt([(Do((operands[1],), operands[1].line),)], scopes)
                return Unknown()
            return self._value(operands[1], scopes) if holds == (sign == "and") else left
        if sign == "not":
            holds = values.truth(left)
            return Unknown() if holds is None else not holds
        if len(operands) == 1:
            return -left if sign == "-" and isinstance(left, (int, float)) else Unknown()
        right = self._value(operands[1], scopes)
        if sign == "..":
            return values.joined(left, right)
        plain = (str, int, float, bool, type(None))
        if sign in ("==", "~=") and isinstance(left, plain) and isinstance(right, plain):
            return (left == right) == (sign == "==")
        return Unknown()

    def _called(self, call: Call, scopes: tuple[dict[str, Value], ...]) -> Value:
        callee = self._value(call.callee, scopes)
        given = tuple(self._value(each, scopes) for each in call.arguments)
        if isinstance(callee, Closure) and call.method is None:
            return self._call(callee, given)
        path = f"{callee.path}{':' + call.method if call.method else ''}" if isinstance(callee, Library) else ""
        if path == "require" and given and isinstance(given[0], str):
            return self._require(given[0])
        if path == "os.getenv":
            return values.variable(self._environment, given)
        if path == "string.format":
            return values.formatted(given)
        if path == "tostring" and given and isinstance(given[0], str):
            return given[0]
        if path:
            self.said.append(Said(path, given, self._file, call.line, not self._doubts))
        if path == "error":
            self._doubts += 1
        for each in given:
            if isinstance(each, Closure) and path == "kumo.on":
                self._later.append(each)
            elif isinstance(each, Closure):
                self._doubts += 1
                self._call(each, ())
                self._doubts -= 1
            elif isinstance(each, Table) and path.split(".")[0] not in _HARMLESS:
                each.known = False
        return Unknown()

    def _call(self, closure: Closure, given: tuple[Value, ...]) -> Value:
        if self._calls >= _DEEPEST_CALL:
            return Unknown()
        before, self._file = self._file, closure.file
        self._calls += 1
        try:
            scope: dict[str, Value] = {
                name: given[number] if number < len(given) else Unknown()
                for number, name in enumerate(closure.function.parameters)
            }
            return self._body(closure.function.body, (*closure.scopes, scope))
        finally:
            self._calls -= 1
            self._file = before

    def _require(self, name: str) -> Value:
        if name not in self._modules:
            self._modules[name] = Library(name)
            found = self._required(name)
            if found is not None:
                self._modules[name] = self._module(*found)
        return self._modules[name]

    def _step(self, line: int) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise NotLua(line, "it does more than is looked at here")


def _changing(block: Block) -> frozenset[str]:
    """Given a file's statements, return the variables that are set by an assignment after they were declared, or twice:
    what they are when a handler runs, long after, does not follow from where they stand.
    """
    declared: set[str] = set()
    assigned: Counter[str] = Counter()
    for node in _nodes(block):
        if isinstance(node, Local):
            declared.update(node.names)
        elif isinstance(node, Function):
            declared.update(node.parameters)
        elif isinstance(node, Assign):
            assigned.update(each.name for each in node.targets if isinstance(each, Name))
    return frozenset(name for name, count in assigned.items() if count > 1 or name in declared)


def _nodes(block: Block) -> Iterator[Any]:
    waiting: list[Any] = [block]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)  # pyright: ignore[reportUnknownArgumentType]
        elif hasattr(node, "__slots__"):
            yield node
            waiting.extend(getattr(node, slot) for slot in node.__slots__)
