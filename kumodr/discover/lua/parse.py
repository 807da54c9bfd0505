"""From Lua text to its tree: the whole grammar of Lua 5.4, in time that grows with the text, to a bounded depth."""

from kumodr.discover.lua.tokens import NotLua, Token, tokens
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

_DEEPEST = 60
_BLOCK_ENDS = ("end", "else", "elseif", "until")
_BINDING = {
    "or": (1, 1), "and": (2, 2),
    "<": (3, 3), ">": (3, 3), "<=": (3, 3), ">=": (3, 3), "~=": (3, 3), "==": (3, 3),
    "|": (4, 4), "~": (5, 5), "&": (6, 6), "<<": (7, 7), ">>": (7, 7), "..": (9, 8),
    "+": (10, 10), "-": (10, 10), "*": (11, 11), "/": (11, 11), "//": (11, 11), "%": (11, 11), "^": (14, 13),
}  # fmt: skip
"""How strongly an operator binds to its left and right (the Lua 5.4 manual, §3.4.8)."""
_UNARY = 12


def parse(text: str) -> Block:
    """Given Lua text, return its statements. Raise NotLua with the line."""
    parser = _Parser(list(tokens(text)))
    block = parser.block()
    parser.expect("the end")
    return block


class _Parser:
    def __init__(self, words: list[Token]) -> None:
        self._words, self._at, self._depth = words, 0, 0

    @property
    def _now(self) -> Token:
        return self._words[self._at]

    def _next(self) -> Token:
        token = self._now
        self._at += token.kind != "end"
        return token

    def _is(self, text: str) -> bool:
        return self._now.text == text and self._now.kind in ("sign", "keyword", "end")

    def _took(self, text: str) -> bool:
        found = self._is(text)
        if found:
            self._next()
        return found

    def expect(self, text: str) -> Token:
        if not self._is(text):
            raise NotLua(self._now.line, f"{text!r} was expected before {self._now.text[:40]!r}")
        return self._next()

    def _name(self) -> str:
        if self._now.kind != "name":
            raise NotLua(self._now.line, f"a name was expected before {self._now.text[:40]!r}")
        return self._next().text

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise NotLua(self._now.line, "it is nested too deeply")

    def block(self) -> Block:
        self._deeper()
        found: list[Statement] = []
        while self._now.kind != "end" and not (self._now.kind == "keyword" and self._now.text in _BLOCK_ENDS):
            if self._is("return"):
                line = self._next().line
                values = () if self._is(";") or self._block_ends() else self._expressions()
                self._took(";")
                found.append(Leave(values, line))
                break
            found += self._statement()
        self._depth -= 1
        return tuple(found)

    def _block_ends(self) -> bool:
        return self._now.kind == "end" or (self._now.kind == "keyword" and self._now.text in _BLOCK_ENDS)

    def _statement(self) -> tuple[Statement, ...]:
        line = self._now.line
        if self._took(";"):
            return ()
        if self._took("break"):
            return (Leave((), line),)
        if self._took("::"):
            self._name()
            self.expect("::")
            return ()
        if self._took("goto"):
            self._name()
            return (Leave((), line),)
        if self._took("do"):
            return (Loop((), (), self._until_end(), True, line),)
        if self._took("while"):
            condition = self._expression()
            self.expect("do")
            return (Do((condition,), line), Loop((), (), self._until_end(), False, line))
        if self._took("repeat"):
            body = self.block()
            self.expect("until")
            return (Loop((), (), (*body, Do((self._expression(),), line)), False, line),)
        if self._took("if"):
            return (self._if(line),)
        if self._took("for"):
            return (self._for(line),)
        if self._took("function"):
            return (self._named_function(line),)
        if self._took("local"):
            return (self._local(line),)
        return (self._assignment_or_call(line),)

    def _until_end(self) -> Block:
        body = self.block()
        self.expect("end")
        return body

    def _if(self, line: int) -> If:
        cases: list[tuple[Expression, Block]] = []
        while True:
            condition = self._expression()
            self.expect("then")
            cases.append((condition, self.block()))
            if not self._took("elseif"):
                break
        otherwise = self.block() if self._took("else") else ()
        self.expect("end")
        return If(tuple(cases), otherwise, line)

    def _for(self, line: int) -> Loop:
        names = [self._name()]
        while self._took(","):
            names.append(self._name())
        numeric = self._took("=")
        if not numeric:
            self.expect("in")
        over = self._expressions()
        self.expect("do")
        # The values of a counting loop are not looked at: its variable is not known.
        over = (Operation("for", over, line),) if numeric else over
        return Loop(tuple(names), over, self._until_end(), False, line)

    def _named_function(self, line: int) -> Assign:
        target: Expression = Name(self._name(), line)
        method = False
        while not method and (self._is(".") or self._is(":")):
            method = self._next().text == ":"
            target = Index(target, Constant(self._name(), line), line)
        return Assign((target,), (self._function(line, method=method),), line)

    def _local(self, line: int) -> Local:
        if self._took("function"):
            name = self._name()
            return Local((name,), (self._function(line),), line)
        names: list[str] = []
        while True:
            names.append(self._name())
            if self._took("<"):
                self._name()
                self.expect(">")
            if not self._took(","):
                break
        values = self._expressions() if self._took("=") else ()
        return Local(tuple(names), values, line)

    def _assignment_or_call(self, line: int) -> Statement:
        targets = [self._suffixed()]
        while self._took(","):
            targets.append(self._suffixed())
        if self._took("="):
            return Assign(tuple(targets), self._expressions(), line)
        if len(targets) == 1 and isinstance(targets[0], Call):
            return Do(tuple(targets), line)
        raise NotLua(self._now.line, f"{self._now.text[:40]!r} is not understood")

    def _expressions(self) -> tuple[Expression, ...]:
        found = [self._expression()]
        while self._took(","):
            found.append(self._expression())
        return tuple(found)

    def _expression(self, limit: int = 0) -> Expression:
        self._deeper()
        line = self._now.line
        if self._now.kind in ("sign", "keyword") and self._now.text in ("not", "-", "#", "~"):
            sign = self._next().text
            left: Expression = Operation(sign, (self._expression(_UNARY),), line)
        else:
            left = self._simple()
        while self._now.kind in ("sign", "keyword") and _BINDING.get(self._now.text, (0, 0))[0] > limit:
            sign, line = self._now.text, self._next().line
            left = Operation(sign, (left, self._expression(_BINDING[sign][1])), line)
        self._depth -= 1
        return left

    def _simple(self) -> Expression:
        token = self._now
        if token.kind == "string":
            return Constant(self._next().text, token.line)
        if token.kind == "number":
            return Constant(_number(self._next()), token.line)
        if token.kind == "keyword" and token.text in ("nil", "true", "false"):
            return Constant({"nil": None, "true": True, "false": False}[self._next().text], token.line)
        if self._took("..."):
            return Name("...", token.line)
        if self._took("function"):
            return self._function(token.line)
        return self._constructor() if self._is("{") else self._suffixed()

    def _suffixed(self) -> Expression:
        line = self._now.line
        if self._took("("):
            found = self._expression()
            self.expect(")")
        else:
            found = Name(self._name(), line)
        while True:
            line = self._now.line
            if self._took("."):
                found = Index(found, Constant(self._name(), line), line)
            elif self._took("["):
                found = Index(found, self._expression(), line)
                self.expect("]")
            elif self._took(":"):
                found = Call(found, self._name(), self._arguments(), line)
            elif self._now.kind == "string" or self._is("(") or self._is("{"):
                found = Call(found, None, self._arguments(), line)
            else:
                return found

    def _arguments(self) -> tuple[Expression, ...]:
        if self._now.kind == "string":
            token = self._next()
            return (Constant(token.text, token.line),)
        if self._is("{"):
            return (self._constructor(),)
        self.expect("(")
        found = () if self._is(")") else self._expressions()
        self.expect(")")
        return found

    def _function(self, line: int, *, method: bool = False) -> Function:
        self.expect("(")
        parameters = ["self"] if method else []
        while not self._is(")"):
            parameters.append("..." if self._took("...") else self._name())
            if not self._took(","):
                break
        self.expect(")")
        return Function(tuple(parameters), self._until_end(), line)

    def _constructor(self) -> Constructor:
        line = self.expect("{").line
        items: list[Expression] = []
        fields: list[tuple[Expression, Expression]] = []
        while not self._is("}"):
            following = self._words[min(self._at + 1, len(self._words) - 1)]
            if self._took("["):
                key = self._expression()
                self.expect("]")
                self.expect("=")
                fields.append((key, self._expression()))
            elif self._now.kind == "name" and following.kind == "sign" and following.text == "=":
                key = Constant(self._name(), self._now.line)
                self.expect("=")
                fields.append((key, self._expression()))
            else:
                items.append(self._expression())
            if not (self._took(",") or self._took(";")):
                break
        self.expect("}")
        return Constructor(tuple(items), tuple(fields), line)


def _number(token: Token) -> int | float:
    try:
        return int(token.text, 0)
    except ValueError:
        try:
            return float(token.text)
        except ValueError:
            return float("nan")
