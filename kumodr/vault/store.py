"""Where objects are kept: the protocol of a store, and which store an address means.

A new kind of store is one new file that passes `tests/test_vault_store.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from kumodr import errors
from kumodr.plan.model import VaultPlan

Piece = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Entry:
    """What a store says of one object: its name, its size in bytes, and by the store's own clock when it was put."""

    name: str
    size: int
    modified: datetime


class Store(Protocol):
    """Objects by name, written once. Names are relative, with `/`. Every method may raise StoreUnavailable."""

    @property
    def address(self) -> str:
        """The address as a person knows it, without secrets."""
        ...

    def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
        """Given a name and its bytes in pieces, store them whole and durably; return False where the name exists.

        Of several writers of one name exactly one gets True. After True, and after False, the name holds a whole
        object. Raise StoreReadOnly, StoreFull, StoreUnavailable; then the name may be absent, but never half there.
        """
        ...

    def get(self, name: str, limit: int) -> bytes:
        """Given a name, return its bytes. Raise ObjectMissing, or ObjectDamaged where there are more than `limit`."""
        ...

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        """Given a name and a length, return the object's first bytes, at most that many, and its whole size.

        Raise ObjectMissing.
        """
        ...

    def size(self, name: str) -> int | None:
        """Given a name, return its size in bytes, or None where it does not exist."""
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Given a prefix that ends with `/` or is empty, yield every name below it, in no order.

        `after` leaves out what does not come behind it in the order of bytes; an object store does not read that then.
        """
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """As `list`, but yield what the store says of each object. One that vanishes meanwhile is left out."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Given names, remove their objects, durably; one that is not there is no mistake. Raise StoreReadOnly.

        Where the store refuses some, the others are deleted all the same; then raise ObjectsLocked.
        """
        ...

    def unconditional(self) -> "Store":
        """The same store without use of its conditional put, for a single writer: where it is known to have none."""
        ...


def placed(where: str | VaultPlan) -> VaultPlan:
    """Given an address, or an address with its settings, return the latter."""
    return VaultPlan(where) if isinstance(where, str) else where


def open_store(where: str | VaultPlan, *, create: bool = False, marker: str | None = None) -> Store:
    """Given an address, return its store: a path or `file:///…` is a directory, everything else an object store.

    `marker` names the object without which a directory does not count as the store any more.
    Raise VaultMissing where a directory does not exist and is not to be created, UsageWrong for an unknown kind.
    """
    url = placed(where).url
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        from kumodr.vault.directory import DirectoryStore

        path = Path(unquote(parts.path) if parts.scheme else url)
        if parts.netloc or not path.is_absolute():
            raise errors.UsageWrong(
                f"the vault address {url} is no absolute path", remedy="write file:///path or /path"
            )
        store = DirectoryStore(path, marker)
        if create:
            store.make()
        elif not path.is_dir():
            raise errors.VaultMissing(f"there is no vault at {path}")
        return store
    from kumodr.vault.providers import open_object_store

    return open_object_store(placed(where))
