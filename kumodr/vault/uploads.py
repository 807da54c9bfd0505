"""Sealing and storing pieces of content beside each other, each once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.vault.facts import StoredObject
from kumodr.vault.marks import read_marks
from kumodr.vault.memory import give_back_freed_memory, keep_freed_memory
from kumodr.vault.open import Vault
from kumodr.vault.seal import LARGEST_SEALED, checksum_of, seal
from kumodr.vault.state import Piece, State, remember_object

_WORKERS = 4
_WAITING = 4
"""Pieces read but not yet stored: what bounds memory, beside the copies that each worker makes of its piece."""


class Uploads:
    """Given plain pieces, seal and store them on worker threads, under names that content gives.

    A piece whose name is known to be stored is neither sealed nor sent: names are keyed hashes of the whole content.
    An object that exists but is not remembered (the state was lost) is read back for its checksum, not trusted.
    One that is on a mark is about to be deleted: its content is stored again, under a name that no mark has.
    """

    def __init__(
        self, vault: Vault, state: State, directory: Path, naming_key: bytes, marks: Sequence[int] = ()
    ) -> None:
        self._vault = vault
        self._state = state
        self._directory = directory
        self._naming_key = naming_key
        self._keys = vault.public_keys()
        self._marks = marks
        self._marked = frozenset[str]().union(*(read_marks(vault, marks).values()))
        keep_freed_memory()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="kumodr-seal")
        self._room = threading.Semaphore(_WAITING)
        self._failure: BaseException | None = None
        self.stored_bytes = 0

    def submit(self, plain: bytes) -> "Future[Piece]":
        """Given a piece, return the promise of it being stored. Waits while too many are; raises an earlier failure."""
        self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise self._failure
        return self._pool.submit(self._guarded, plain)

    def close(self) -> None:
        """Wait for the pieces under way and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        give_back_freed_memory()

    def _guarded(self, plain: bytes) -> Piece:
        try:
            return self._store(plain)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._room.release()

    def _store(self, plain: bytes) -> Piece:
        import blake3

        digest = blake3.blake3(plain).digest()
        name = self._name(digest)
        known = self._state.objects.get(name)
        if known is not None:
            return known
        if self._vault.store.size(name) is None:
            sealed = seal(plain, self._keys)
            stored = StoredObject(name, sealed.size, sealed.crc32c)
            if not self._vault.store.put_if_absent(name, sealed.pieces):
                stored = self._found(name)
            self.stored_bytes += stored.size
        else:
            stored = self._found(name)
        piece = Piece(stored, len(plain), digest.hex())
        self._state.objects[name] = piece
        remember_object(self._directory, self._vault.id, piece)
        return piece

    def _name(self, digest: bytes) -> str:
        """Return the content's own name, or where that is on a mark, the first of those that the marks' numbers give.

        That of the newest number is on none: whoever could give it has seen the newest mark.
        """
        import blake3

        name = ""
        if self._vault.generation:
            digest += f"\1{self._vault.generation}".encode()
        for salt in (b"", *(f"\0{number}".encode() for number in self._marks)):
            text = blake3.blake3(digest + salt, key=self._naming_key).hexdigest(length=20)
            name = f"objects/{text[:2]}/{text}"
            if name not in self._marked:
                return name
        raise errors.ObjectDamaged(
            f"every name that the content of {name} may have is on a mark", remedy="look at who can write to the vault"
        )

    def _found(self, name: str) -> StoredObject:
        sealed = self._vault.store.get(name, LARGEST_SEALED)
        if not sealed.startswith(b"age-encryption.org/v1\n"):
            raise errors.ObjectDamaged(
                f"object {name} in the vault is damaged and stands in the way of a good copy",
                remedy="move that object away, then run this again",
            )
        return StoredObject(name, len(sealed), checksum_of(sealed))


Submit = Callable[[bytes], "Future[Any]"]
