"""Make the spool that is measured: RocksDB with kumod's options, as a server that was killed leaves it.

`python -m benchmarks.spool FOLDER SIZE SEED NEWEST` runs in a process of its own, because only a process that ends
without closing the databases leaves their newest entries in the write-ahead log, as KumoMTA does.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.mail import messages

if TYPE_CHECKING:
    from rocksdict import Rdict

_TAIL = 24 << 20
_FRESH = timedelta(days=3)
"""Older mail would be near KumoMTA's age limit, and a restore would rightly warn of it."""


@dataclass(frozen=True)
class Dataset:
    """A spool: `folder/spool/{meta,data}`. Sizes in bytes; `tail` is what only the write-ahead logs hold."""

    folder: str
    seed: int
    newest: str
    messages: int
    bodies: int
    files: int
    size: int
    tables: int
    tail: int

    @property
    def spool(self) -> Path:
        return Path(self.folder) / "spool"


def dataset(folder: Path, size: int, seed: int) -> Dataset:
    """Given a folder, return the spool of that size and seed in it, made when there is none that is recent."""
    facts = folder / "dataset.json"
    wanted = {"size": size, "seed": seed}
    now = datetime.now(UTC)
    if facts.exists():
        stored = json.loads(facts.read_text())
        if stored["wanted"] == wanted and now - datetime.fromisoformat(stored["made"]["newest"]) < _FRESH:
            return Dataset(**stored["made"] | {"folder": str(folder)})
    subprocess.run(["rm", "-rf", "--", str(folder)], check=True)
    folder.mkdir(parents=True, mode=0o700)
    newest = now.replace(minute=0, second=0, microsecond=0)
    command = [sys.executable, "-m", "benchmarks.spool", str(folder), str(size), str(seed), newest.isoformat()]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parent.parent)
    made = described(folder, size, seed, newest)
    facts.write_text(json.dumps({"wanted": wanted, "made": asdict(made)}))
    return made


def described(folder: Path, size: int, seed: int, newest: datetime) -> Dataset:
    """Given a folder with a spool, return what it holds."""
    count, bodies = json.loads((folder / "counts.json").read_text())
    sizes = {path: path.stat().st_size for path in (folder / "spool").rglob("*") if path.is_file()}
    return Dataset(
        folder=str(folder),
        seed=seed,
        newest=newest.isoformat(),
        messages=count,
        bodies=bodies,
        files=len(sizes),
        size=sum(sizes.values()),
        tables=sum(path.suffix == ".sst" for path in sizes),
        tail=sum(each for path, each in sizes.items() if path.suffix == ".log"),
    )


def write(folder: Path, size: int, seed: int, newest: datetime) -> "tuple[Rdict, Rdict]":
    """Given an empty folder, write the spool, and its counts beside it. Return the open databases:
    closing them, which their going out of scope does, would empty the write-ahead logs."""
    data, meta = opened(folder / "spool" / "data"), opened(folder / "spool" / "meta")
    count, bodies, settled = 0, 0, False
    for message in messages(size, seed, newest):
        if not settled and bodies >= size - min(_TAIL, size // 8):
            settle(data)
            settle(meta)
            settled = True
        data.put(message.key, message.body)
        meta.put(message.key, message.meta)
        count += 1
        bodies += len(message.body)
    for name in ("data", "meta"):
        (folder / "spool" / name / "rocksdict-config.json").unlink(missing_ok=True)
    (folder / "counts.json").write_text(json.dumps([count, bodies]))
    return data, meta


def opened(half: Path) -> "Rdict":
    """Given a path, return the database there, made where there is none, with the options that kumod sets."""
    from rocksdict import BlockBasedOptions, DBCompressionType, Options, Rdict

    half.mkdir(parents=True, exist_ok=True, mode=0o750)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_keep_log_file_num(10)
    options.set_use_fsync(False)
    options.set_paranoid_checks(False)
    options.set_compression_type(DBCompressionType.snappy())
    options.set_write_buffer_size(64 << 20)
    tables = BlockBasedOptions()
    tables.set_format_version(5)
    options.set_block_based_table_factory(tables)
    return Rdict(str(half), options)


def settle(database: "Rdict") -> None:
    """Given a database, write its memory to tables and wait until no compaction runs or is due."""
    database.flush()
    busy = ("rocksdb.num-running-compactions", "rocksdb.num-running-flushes", "rocksdb.compaction-pending")
    limit = time.monotonic() + 600
    while any(database.property_int_value(name) for name in busy) and time.monotonic() < limit:
        time.sleep(0.05)


if __name__ == "__main__":
    kept_open = write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), datetime.fromisoformat(sys.argv[4]))
    os.sync()
    os._exit(0)
