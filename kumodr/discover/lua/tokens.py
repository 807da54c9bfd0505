"""The words of a Lua text: names, strings, numbers, signs. Comments and long strings are understood."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

KEYWORDS = frozenset(
    [
        "and",
        "break",
        "do",
        "else",
        "elseif",
        "end",
        "false",
        "for",
        "function",
        "goto",
        "if",
        "in",
        "local",
        "nil",
        "not",
        "or",
        "repeat",
        "return",
        "then",
        "true",
        "until",
        "while",
    ]
)


class NotLua(Exception):
    """The text is not the Lua that this understands. Never leaves this package but as a sentence."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line, self.what = line, what


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is "name", "string", "number", "sign", "keyword" or "end"; `text` is what a string holds."""

    kind: str
    text: str
    line: int


_WORD = re.compile(
    r"(?P<space>[ \t\r\n\f\v]+)"
    r"|(?P<comment>--)"
    r"|(?P<long>\[(?P<equals>=*)\[)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>0[xX][0-9a-fA-F.]+(?:[pP][+-]?[0-9]+)?|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<quote>[\"'])"
    r"|(?P<sign>\.\.\.|\.\.|::|<<|>>|//|==|~=|<=|>=|[-+*/%^#&~|<>=(){}\[\];:,.])"
)
_LONG = re.compile(r"\[(=*)\[")
_ENDS = {quote: re.compile(rf"[^{quote}\\\n]*") for quote in "\"'"}
_ESCAPE = re.compile(r"\\(?:(\d{1,3})|x([0-9a-fA-F]{2})|u\{([0-9a-fA-F]{1,8})\}|z\s*|(\r?\n|.))", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def tokens(text: str) -> Iterator[Token]:
    """Given Lua text, yield its words and an "end". Raise NotLua. Takes time in proportion to the text."""
    at, line = 0, 1
    if text.startswith("#"):
        at = _line_end(text, 0)
    while at < len(text):
        found = _WORD.match(text, at)
        if found is None:
            raise NotLua(line, f"{text[at]!r} is not understood")
        kind, word, begun = str(found.lastgroup), found[0], line
        at = found.end()
        if kind == "comment":
            long = _LONG.match(text, at)
            at = _long_end(text, long.end(), long[1], line)[1] if long else _line_end(text, at)
        elif kind == "long":
            word, at = _long_end(text, at, found["equals"], line)
            yield Token("string", word, begun)
        elif kind == "quote":
            word, at = _quoted(text, at, word, line)
            yield Token("string", word, begun)
        elif kind == "name":
            yield Token("keyword" if word in KEYWORDS else "name", word, begun)
        elif kind != "space":
            yield Token(kind, word, begun)
        line += text.count("\n", found.start(), at)
    yield Token("end", "the end", line)


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _long_end(text: str, at: int, equals: str, line: int) -> tuple[str, int]:
    mark = f"]{equals}]"
    end = text.find(mark, at)
    if end < 0:
        raise NotLua(line, f"what begins with [{equals}[ has no end")
    return text[at:end].removeprefix("\r").removeprefix("\n"), end + len(mark)


def _quoted(text: str, at: int, quote: str, line: int) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        if plain := _ENDS[quote].match(text, at):
            parts.append(plain[0])
            at = plain.end()
        if text[at : at + 1] == quote:
            return "".join(parts), at + 1
        escape = _ESCAPE.match(text, at)
        if escape is None:
            raise NotLua(line, f"a string that begins with {quote} has no end")
        parts.append(_escaped(escape))
        at = escape.end()


def _escaped(found: re.Match[str]) -> str:
    decimal, hexadecimal, point, other = found.groups()
    if decimal or hexadecimal or point:
        number = int(decimal) if decimal else int(hexadecimal or point, 16)
        return chr(number) if number < 0x110000 else "\ufffd"
    if other is None:
        return ""
    return _SIMPLE.get(other, other)
