"""A scratch view: a private directory that RocksDB can open in place of a pinned database.

Tables are symbolic links to the descriptors that pin them (`/proc/self/fd/N`, so the view works in each process that
has them), and nothing big is copied. CURRENT, OPTIONS, IDENTITY, the MANIFEST and the write-ahead logs are copies, cut
at the noted sizes: the originals may be growing. RocksDB's binding writes files into the directory that it opens
(`rocksdict-config.json`, `LOG`): that is only ever this one.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kumodr import errors
from kumodr.source import Pinned

if TYPE_CHECKING:
    from rocksdict import Rdict

_PIECE = 1 << 20
_OPEN_TABLES = 256


@dataclass(frozen=True)
class ViewFile:
    """A file of a pinned database: its name, its descriptor and the size that counts."""

    name: str
    descriptor: int
    size: int


def build(
    directory: Path,
    files: Iterable[ViewFile],
    small: Mapping[str, bytes],
    seen: Callable[[str, bytes], None] = lambda _name, _piece: None,
) -> None:
    """Given a directory to make, fill it with the view. `seen` gets every copied piece of a log, in order.

    Raise DiskFull, SpoolUnreadable.
    """
    try:
        directory.mkdir(mode=0o700)
        for name, data in small.items():
            _write(directory / name, [data])
        for file in files:
            if file.name.endswith((".sst", ".blob")):
                (directory / file.name).symlink_to(f"/proc/self/fd/{file.descriptor}")
            else:
                _write(directory / file.name, _pieces(file, seen))
    except OSError as error:
        raise _named(directory, error) from error


def open_view(directory: Path) -> "Rdict":
    """Given a view, open it read-only with every check that RocksDB has. Raise SpoolDamaged with RocksDB's reason."""
    from rocksdict import AccessType, BlockBasedOptions, Options, Rdict

    options = Options(raw_mode=True)
    options.create_if_missing(False)
    options.set_paranoid_checks(True)
    options.set_max_open_files(_OPEN_TABLES)
    tables = BlockBasedOptions()
    tables.disable_cache()
    options.set_block_based_table_factory(tables)
    try:
        return Rdict(str(directory), options, access_type=AccessType.read_only(False))
    except Exception as error:  # the binding raises nothing more special
        raise errors.SpoolDamaged(f"RocksDB refuses to open it: {tidy(error, directory)}") from error


def tidy(error: Exception, directory: Path) -> str:
    """Given RocksDB's error, return its text in one line, without the scratch directory's path."""
    return " ".join(str(error).replace(f"{directory}/", "").split())[:500]


def _pieces(file: ViewFile, seen: Callable[[str, bytes], None]) -> Iterable[bytes]:
    content = Pinned(file.descriptor)
    for offset in range(0, file.size, _PIECE):
        piece = content.read(offset, min(_PIECE, file.size - offset))
        seen(file.name, piece)
        yield piece


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for piece in pieces:
            while piece:
                piece = piece[file.write(piece) :]


def _named(directory: Path, error: OSError) -> errors.KumodrError:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return errors.DiskFull(
            f"no room for a scratch view in {directory.parent}",
            remedy="free space there (as much as the spool's write-ahead logs take), or point TMPDIR elsewhere",
        )
    return errors.SpoolUnreadable(f"the spool cannot be read for a scratch view: {error.strerror or error}")
