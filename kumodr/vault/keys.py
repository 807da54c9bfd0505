"""Keys: identities, which read the vault and live elsewhere, and a node's key, which signs what it adds."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.durable import write_file

_LARGEST_IDENTITY_FILE = 1 << 20
_PIN = re.compile(r"#\s*kumodr node (\S+) ([0-9a-f]{64})\s*$")


@dataclass(frozen=True)
class Identity:
    """A new identity: its secret text, `AGE-SECRET-KEY-1…`, and its recipient, `age1…`."""

    secret: str = field(repr=False)
    recipient: str


@dataclass(frozen=True)
class Identities:
    """What opens a vault, and the node keys that the identity file vouches for: node name → public keys in hex."""

    secrets: tuple[Any, ...] = field(repr=False)
    pins: Mapping[str, frozenset[str]]


def generate_identity() -> Identity:
    """Return a new identity."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from kumodr.vault.age import recipient_of, text_of_secret

    secret = X25519PrivateKey.generate()
    return Identity(text_of_secret(secret), recipient_of(secret))


def identity_text(identity: Identity, vault_id: str, nodes: Mapping[str, str]) -> str:
    """Given an identity, the vault's id and the node keys to vouch for, return the text of the file to keep."""
    lines = [
        f"# kumodr identity for vault {vault_id}: it reads everything in the vault. Keep it away from the mail host",
        "# and from the vault. A recovery needs this file and the vault's address, nothing else.",
        f"# public key: {identity.recipient}",
        *(f"# kumodr node {node} {key}" for node, key in nodes.items()),
        identity.secret,
    ]
    return "\n".join(lines) + "\n"


def load_identities(path: str | None, environment: Mapping[str, str]) -> Identities:
    """Given a file's path (None: KUMODR_IDENTITY_FILE, or KUMODR_IDENTITY itself), return what it holds.

    A file that a passphrase protects, as `age -p` makes it, is opened. Raise KeyMissing where there is none, WrongKey
    where the file holds no identity or the passphrase is wrong.
    """
    path = path or environment.get("KUMODR_IDENTITY_FILE")
    if path is None:
        if not environment.get("KUMODR_IDENTITY"):
            raise errors.KeyMissing("no identity is given")
        return parse_identities(environment["KUMODR_IDENTITY"], "KUMODR_IDENTITY")
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_IDENTITY_FILE)
    except OSError as error:
        raise errors.KeyMissing(f"the identity file {path} cannot be read: {error.strerror}") from error
    from kumodr.vault.passphrase import is_protected, opened

    if is_protected(data):
        try:
            data = opened(data, passphrase_of(path, environment))
        except ValueError as error:
            raise errors.WrongKey(
                f"the identity file {path} cannot be opened: {error}", remedy="give the passphrase that protects it"
            ) from None
    return parse_identities(data.decode("utf-8", "replace"), path)


def passphrase_of(path: str, environment: Mapping[str, str]) -> str:
    """Given the identity file, return its passphrase: the first line of the file KUMODR_IDENTITY_PASSPHRASE_FILE, else
    what is typed at the terminal.

    Raise KeyMissing where there is neither.
    """
    where = environment.get("KUMODR_IDENTITY_PASSPHRASE_FILE")
    remedy = "name a file that holds it with KUMODR_IDENTITY_PASSPHRASE_FILE, or run this at a terminal"
    if where is not None:
        try:
            with open(where, encoding="utf-8") as file:
                return file.readline(_LARGEST_IDENTITY_FILE).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise errors.KeyMissing(f"the passphrase file {where} cannot be read: {error}", remedy=remedy) from error
    if not sys.stdin.isatty():
        raise errors.KeyMissing(f"the identity file {path} needs a passphrase", remedy=remedy)
    import getpass

    return getpass.getpass(f"passphrase of {path}: ")


def parse_identities(text: str, where: str) -> Identities:
    """Given the text of an identity file (as `age-keygen` writes it), return what it holds. Raise WrongKey."""
    from kumodr.vault.age import secret_of_text

    secrets: list[Any] = []
    pins: dict[str, set[str]] = {}
    for line in (line.strip() for line in text.splitlines()):
        pin = _PIN.match(line)
        if pin:
            pins.setdefault(pin[1], set()).add(pin[2])
        elif line and not line.startswith("#"):
            try:
                secrets.append(secret_of_text(line))
            except ValueError:
                raise errors.WrongKey(f"{where} holds a line that is no age identity") from None
    if not secrets:
        raise errors.WrongKey(f"{where} holds no age identity")
    return Identities(tuple(secrets), {node: frozenset(keys) for node, keys in pins.items()})


class NodeKey:
    """A node's Ed25519 key. It signs manifests; the key that names objects is derived from it."""

    def __init__(self, node: str, private: Any) -> None:
        self.node = node
        self._private = private
        self.public: str = private.public_key().public_bytes_raw().hex()

    @classmethod
    def load_or_create(cls, state: Path, node: str) -> "NodeKey":
        """Given the node's state directory and name, return its key, made when there is none yet.

        Raise KeyMissing where the file cannot be read or is no key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = state / "node.key"
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                write_file(path, Ed25519PrivateKey.generate().private_bytes_raw().hex().encode() + b"\n")
            return cls(node, Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip())))
        except (OSError, ValueError) as error:
            raise errors.KeyMissing(
                f"the node's key {path} cannot be used: {error}",
                remedy="give this user access to the state directory, or move the file away to begin with a new key",
            ) from error

    def sign(self, text: bytes) -> bytes:
        """Given bytes, return the 64 bytes of their Ed25519 signature."""
        return self._private.sign(text)

    def naming_key(self) -> bytes:
        """Return the 32 bytes that key the names of objects: who has only the vault can confirm no guess by a name."""
        import blake3

        return blake3.blake3(
            self._private.private_bytes_raw(), derive_key_context="kumodr 2026-11-24 names of vault objects"
        ).digest()


def is_beside(path: Path, vault: Path) -> bool:
    """Return whether a file at `path` would lie in the vault's directory or right beside it."""
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(vault))
    return root in real.parents or real.parent == root.parent
