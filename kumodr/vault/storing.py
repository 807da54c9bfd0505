"""One component on its way into the vault: its files cut into objects, stored, and listed in the sealed index."""

import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from kumodr import errors
from kumodr.source import Capture, Gone, Progress, SourceFile
from kumodr.vault.facts import Section, StoredObject
from kumodr.vault.index import file_line, line
from kumodr.vault.layout import LARGE, Cut, Packer, cut_large, key_of
from kumodr.vault.open import Vault
from kumodr.vault.seal import LARGEST_PLAIN, seal
from kumodr.vault.state import Piece, State
from kumodr.vault.tarstream import END, Entry, entry_of, header
from kumodr.vault.uploads import Uploads

_INDEX_PART = 4 << 20


class Storing:
    """One component on its way into the vault."""

    def __init__(self, uploads: Uploads, state: State, files: dict[str, tuple[str, ...]], progress: Progress) -> None:
        self._uploads = uploads
        self._state = state
        self._known_files = files
        self._progress = progress
        self._placed: deque[tuple[Future[Piece] | Piece, tuple[tuple[Entry, int], ...]]] = deque()
        self._index = bytearray()
        self._index_objects: list[StoredObject] = []
        self._objects: list[StoredObject] = []
        self._large_files: dict[str, Sequence[Future[Piece] | Piece]] = {}
        self._count = 0
        self._size = 0

    def run(self, component: str, capture: Capture, vault: Vault) -> Section:
        """Store every file of the capture and its index; return the section."""
        packer = Packer()
        for file in capture.files:
            try:
                if file.kind == "file" and file.size >= LARGE:
                    self._large(file)
                elif (full := packer.add(file)) is not None:
                    self._small(full)
            except Gone:
                continue
            except OSError as error:
                raise errors.ComponentUnavailable(
                    f"{component}: {file.path} cannot be read: {error.strerror or error}"
                ) from error
            self._count += file.kind == "file"
            self._size += file.size if file.kind == "file" else 0
            self._progress(f"storing {component}", self._size, 0)
            self._settle(keep=64, vault=vault)
        self._small(packer.take(END))
        facts = capture.facts()
        self._settle(keep=0, vault=vault)
        for key, promises in self._large_files.items():
            self._known_files[key] = tuple(_kept(promise).stored.name for promise in promises)
        self._index += line(["s", dict(facts.sealed)])
        self._flush_index(vault)
        return Section(
            component=component,
            objects=tuple(self._objects),
            index=tuple(self._index_objects),
            files=self._count,
            size=self._size,
            facts=facts.clear,
        )

    def _small(self, cut: Cut) -> None:
        self._placed.append((self._uploads.submit(cut.plain), cut.files))

    def _large(self, file: SourceFile) -> None:
        key = key_of(file)
        pieces = self._stored_before(key)
        if pieces is not None:
            entry = entry_of(file)
            starts = ((entry, len(header(entry))),)
            self._placed += [(piece, starts if number == 0 else ()) for number, piece in enumerate(pieces)]
        else:
            placed = [(self._uploads.submit(cut.plain), cut.files) for cut in cut_large(file)]
            self._placed += placed
            pieces = [promise for promise, _ in placed]
        if key:
            self._large_files[key] = pieces

    def _stored_before(self, key: str | None) -> list[Piece] | None:
        names = self._state.files.get(key) if key else None
        if names is None or any(name not in self._state.objects for name in names):
            return None
        return [self._state.objects[name] for name in names]

    def _settle(self, *, keep: int, vault: Vault) -> None:
        """Write the index lines of what is stored, in order, leaving at most `keep` objects open."""
        while len(self._placed) > keep:
            promise, files = self._placed.popleft()
            piece = _kept(promise)
            self._objects.append(piece.stored)
            self._index += line(["o", piece.stored.name, piece.plain_size, piece.blake3])
            for entry, offset in files:
                self._index += file_line(entry, offset)
                if len(self._index) >= _INDEX_PART:
                    self._flush_index(vault)

    def _flush_index(self, vault: Vault) -> None:
        """Store the index lines gathered so far, always whole lines, as further objects of the index."""
        data = bytes(self._index)
        self._index.clear()
        while data:
            end = len(data) if len(data) <= LARGEST_PLAIN else data.rfind(b"\n", 0, LARGEST_PLAIN) + 1
            sealed = seal(data[:end], vault.public_keys())
            digest = hashlib.sha256(b"".join(sealed.pieces)).hexdigest()
            name = f"objects/{digest[:2]}/{digest[:40]}"
            vault.store.put_if_absent(name, sealed.pieces)
            self._index_objects.append(StoredObject(name, sealed.size, sealed.crc32c, digest))
            data = data[end:]


def _kept(promise: Future[Piece] | Piece) -> Piece:
    return promise if isinstance(promise, Piece) else promise.result()
