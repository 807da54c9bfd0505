"""The age file format, version 1, for X25519 recipients (age-encryption.org/v1).

Written here and not with pyrage because pyrage holds the interpreter lock for the whole payload: this runs on every
core. Tested both ways against pyrage and the `age` program.
"""

import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kumodr.vault import bech32

CHUNK = 65536
TAG = 16
_SEALED_CHUNK = CHUNK + TAG
_INTRO = b"age-encryption.org/v1\n"
_LONGEST_HEADER = 65536


class NotForThisKey(Exception):
    """None of the identities opens the file."""


class Damaged(Exception):
    """The file is not age, was cut, or was changed. The text says which."""


def recipient_of(secret: X25519PrivateKey) -> str:
    """Given an identity's secret, return its recipient, `age1…`."""
    return bech32.encode("age", secret.public_key().public_bytes_raw())


def secret_of_text(text: str) -> X25519PrivateKey:
    """Given `AGE-SECRET-KEY-1…`, return the secret. Raise ValueError where it is not one."""
    prefix, data = bech32.decode(text)
    if prefix != "age-secret-key-":
        raise ValueError("not an age identity")
    return X25519PrivateKey.from_private_bytes(data)


def text_of_secret(secret: X25519PrivateKey) -> str:
    """Given an identity's secret, return its text, `AGE-SECRET-KEY-1…`."""
    return bech32.encode("age-secret-key-", secret.private_bytes_raw()).upper()


def public_of_recipient(text: str) -> X25519PublicKey:
    """Given `age1…`, return the public key. Raise ValueError where it is not one."""
    prefix, data = bech32.decode(text)
    if prefix != "age":
        raise ValueError("not an age recipient")
    return X25519PublicKey.from_public_bytes(data)


def encrypt(payload: bytes | memoryview, recipients: Sequence[X25519PublicKey]) -> list[bytes]:
    """Given a payload and at least one recipient, return the age file in pieces, to be joined."""
    file_key = os.urandom(16)
    header = bytearray(_INTRO)
    for recipient in recipients:
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        wrap = _wrapping_key(ephemeral.exchange(recipient), share, recipient.public_bytes_raw())
        body = ChaCha20Poly1305(wrap).encrypt(bytes(12), file_key, None)
        header += b"-> X25519 " + _base64(share) + b"\n" + _base64(body) + b"\n"
    header += b"---"
    nonce = os.urandom(16)
    pieces = [bytes(header) + b" " + _base64(_header_mac(file_key, bytes(header))) + b"\n" + nonce]
    cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    view = memoryview(payload)
    last = max(0, (len(view) - 1) // CHUNK)
    for number in range(last + 1):
        chunk = view[number * CHUNK : (number + 1) * CHUNK]
        pieces.append(cipher.encrypt(_nonce(number, number == last), chunk, None))
    return pieces


Room = Callable[[int], memoryview]
"""Given a size, return writable memory of exactly that size."""


def _fresh(size: int) -> memoryview:
    return memoryview(bytearray(size))


def decrypt(sealed: bytes, secrets: Sequence[X25519PrivateKey], room_of: Room = _fresh) -> memoryview:
    """Given a whole age file, return its payload, in memory from `room_of`. Raise NotForThisKey or Damaged."""
    view = memoryview(sealed)
    file_key, at = _open_header(sealed, secrets)
    nonce, at = sealed[at : at + 16], at + 16
    if len(nonce) != 16 or len(view) < at + TAG:
        raise Damaged("it ends early")
    cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
    last = max(0, (len(view) - at - 1) // _SEALED_CHUNK)
    left = len(view) - at - last * _SEALED_CHUNK
    if left < TAG:
        raise Damaged("it was cut or changed")
    if last and left == TAG:
        raise Damaged("its last chunk is empty")
    room = room_of(len(view) - at - (last + 1) * TAG)
    try:
        for number in range(last + 1):
            chunk = view[at + number * _SEALED_CHUNK : at + (number + 1) * _SEALED_CHUNK]
            place = number * CHUNK
            cipher.decrypt_into(_nonce(number, number == last), chunk, None, room[place : place + len(chunk) - TAG])
    except (InvalidTag, ValueError):
        raise Damaged("it was cut or changed") from None
    return room


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\0")


def _open_header(sealed: bytes, secrets: Sequence[X25519PrivateKey]) -> tuple[bytes, int]:
    """Return the file key and the offset behind the header."""
    end = sealed.find(b"\n---", 0, _LONGEST_HEADER)
    line_end = sealed.find(b"\n", end + 1, _LONGEST_HEADER)
    if not sealed.startswith(_INTRO) or end < 0 or line_end < 0:
        raise Damaged("it is no age file")
    try:
        stanzas = _stanzas(sealed[len(_INTRO) : end + 1])
        mac = _unbase64(sealed[end + 5 : line_end])
    except ValueError:
        raise Damaged("its header is malformed") from None
    for share, body in stanzas:
        for secret in secrets:
            try:
                shared = secret.exchange(X25519PublicKey.from_public_bytes(share))
                wrap = _wrapping_key(shared, share, secret.public_key().public_bytes_raw())
                file_key = ChaCha20Poly1305(wrap).decrypt(bytes(12), body, None)
            except (InvalidTag, ValueError):
                continue
            if not hmac.compare_digest(_header_mac(file_key, sealed[: end + 4]), mac):
                raise Damaged("its header was changed")
            return file_key, line_end + 1
    raise NotForThisKey


def _stanzas(text: bytes) -> list[tuple[bytes, bytes]]:
    """Return share and body of every X25519 stanza; stanzas of other kinds are passed over, as age asks."""
    found: list[tuple[bytes, bytes]] = []
    lines = text.split(b"\n")[:-1]
    at = 0
    while at < len(lines):
        words = lines[at].split(b" ")
        if words[0] != b"->" or len(words) < 2:
            raise ValueError
        at += 1
        body = b""
        while True:
            line = lines[at] if at < len(lines) else b""
            at += 1
            body += line
            if len(line) < 64:
                break
        if words[1] == b"X25519":
            share = _unbase64(words[2]) if len(words) == 3 else b""
            wrapped = _unbase64(body)
            if len(share) != 32 or len(wrapped) != 32:
                raise ValueError
            found.append((share, wrapped))
    return found


def _wrapping_key(shared: bytes, share: bytes, recipient: bytes) -> bytes:
    return _derived(shared, share + recipient, b"age-encryption.org/v1/X25519")


def _derived(key: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


def _header_mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derived(file_key, None, b"header"), header, "sha256")


def _base64(data: bytes) -> bytes:
    return b64encode(data).rstrip(b"=")


def _unbase64(text: bytes) -> bytes:
    data = b64decode(text + b"=" * (-len(text) % 4), validate=True)
    if _base64(data) != text:
        raise ValueError
    return data
