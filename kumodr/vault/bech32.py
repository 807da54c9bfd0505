"""Bech32, as age uses it for keys (BIP 173, without its limit on length)."""

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def encode(prefix: str, data: bytes) -> str:
    """Given a lower-case prefix and bytes, return the bech32 text."""
    values = _regroup(data, 8, 5, pad=True)
    remainder = _polymod(_expanded(prefix) + values + [0] * 6) ^ 1
    checksum = [(remainder >> 5 * (5 - place)) & 31 for place in range(6)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in values + checksum)


def decode(text: str) -> tuple[str, bytes]:
    """Given bech32 text, return its prefix in lower case and its bytes. Raise ValueError where it is not bech32."""
    if text != text.lower() and text != text.upper():
        raise ValueError("mixed case")
    prefix, separator, rest = text.lower().rpartition("1")
    if not separator or not prefix or len(rest) < 6 or any(letter not in _ALPHABET for letter in rest):
        raise ValueError("not bech32")
    values = [_ALPHABET.index(letter) for letter in rest]
    if _polymod(_expanded(prefix) + values) != 1:
        raise ValueError("wrong checksum")
    return prefix, bytes(_regroup(bytes(values[:-6]), 5, 8, pad=False))


def _expanded(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATOR):
            checksum ^= generator if (top >> place) & 1 else 0
    return checksum


def _regroup(data: bytes, wide: int, narrow: int, *, pad: bool) -> list[int]:
    held, bits, found = 0, 0, list[int]()
    for value in data:
        held = (held << wide) | value
        bits += wide
        while bits >= narrow:
            bits -= narrow
            found.append((held >> bits) & ((1 << narrow) - 1))
    if pad and bits:
        found.append((held << (narrow - bits)) & ((1 << narrow) - 1))
    elif not pad and (bits >= wide or held & ((1 << bits) - 1)):
        raise ValueError("wrong padding")
    return found
