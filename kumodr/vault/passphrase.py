"""Identity files that a passphrase protects, as `age -p` writes them: age's scrypt recipient, armored or not."""

import hmac
from base64 import b64decode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_INTRO = b"age-encryption.org/v1\n"
_BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----"
_END = b"-----END AGE ENCRYPTED FILE-----"
_LABEL = b"age-encryption.org/v1/scrypt"
_HARDEST = 20
"""The largest work factor, as a power of two, that is tried: 1 GiB of memory. age itself writes 18."""

_CHUNK = 65536 + 16


def is_protected(data: bytes) -> bool:
    """Given a file's bytes, return whether it is an age file, armored or not."""
    return data.lstrip().startswith(_BEGIN) or data.startswith(_INTRO)


def opened(data: bytes, passphrase: str) -> bytes:
    """Given a protected file and its passphrase, return what is in it. Raise ValueError with the reason why not."""
    sealed = _bare(data)
    header, dashes, rest = sealed.partition(b"\n---")
    line, _, payload = rest.partition(b"\n")
    lines = header.removeprefix(_INTRO).split(b"\n")
    words = lines[0].split(b" ")
    if not sealed.startswith(_INTRO) or not dashes or words[:2] != [b"->", b"scrypt"]:
        raise ValueError("it is not protected by a passphrase")
    if len(words) != 4 or len(lines) != 2 or not words[3].isdigit() or words[3].startswith(b"0"):
        raise ValueError("its header is malformed")
    if int(words[3]) > _HARDEST:
        raise ValueError(f"its work factor of {int(words[3])} is over {_HARDEST}")
    salt, body, mac = (_unbase64(each) for each in (words[2], lines[1], line.removeprefix(b" ")))
    if len(salt) != 16 or len(body) != 32:
        raise ValueError("its header is malformed")
    scrypt = Scrypt(salt=_LABEL + salt, length=32, n=1 << int(words[3]), r=8, p=1)
    try:
        file_key = ChaCha20Poly1305(scrypt.derive(passphrase.encode())).decrypt(bytes(12), body, None)
    except InvalidTag:
        raise ValueError("the passphrase is wrong") from None
    if not hmac.compare_digest(hmac.digest(_derived(file_key, None, b"header"), header + dashes, "sha256"), mac):
        raise ValueError("its header was changed")
    return _payload(payload, file_key)


def _payload(payload: bytes, file_key: bytes) -> bytes:
    cipher = ChaCha20Poly1305(_derived(file_key, payload[:16], b"payload"))
    chunks = [payload[at : at + _CHUNK] for at in range(16, len(payload), _CHUNK)]
    if not chunks:
        raise ValueError("it ends early")
    try:
        return b"".join(
            cipher.decrypt(number.to_bytes(11, "big") + bytes([number + 1 == len(chunks)]), chunk, None)
            for number, chunk in enumerate(chunks)
        )
    except InvalidTag:
        raise ValueError("it was cut or changed") from None


def _bare(data: bytes) -> bytes:
    text = data.strip()
    if not text.startswith(_BEGIN):
        return data
    if not text.endswith(_END):
        raise ValueError("it ends early")
    return _unbase64(b"".join(text[len(_BEGIN) : -len(_END)].split()))


def _unbase64(text: bytes) -> bytes:
    return b64decode(text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4), validate=True)


def _derived(key: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)
