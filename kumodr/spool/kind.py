"""Which kind of spool a directory is: RocksDB, or LocalDisk (plain files, KumoMTA's packaged default)."""

import os
import re
from pathlib import Path
from typing import Literal

from kumodr import errors

Kind = Literal["rocksdb", "localdisk"]

_ROCKSDB = re.compile(r"CURRENT|IDENTITY|MANIFEST-\d+|\d+\.(sst|log|blob)")
_LOCALDISK = frozenset(("data", "new", "lock"))


def kind_of(directory: Path, wanted: str = "auto") -> Kind:
    """Given one half of a spool and the kind that the plan says, return its kind.

    With "auto" it is found out from the names inside, without opening anything. Raise SpoolMissing, SpoolUnreadable.
    """
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        raise errors.SpoolMissing(f"there is no spool directory {directory}") from None
    except OSError as error:
        raise errors.SpoolUnreadable(f"the spool {directory} cannot be listed: {error.strerror}") from error
    if wanted == "rocksdb" or wanted == "localdisk":
        return wanted
    if any(_ROCKSDB.fullmatch(name) for name in names):
        return "rocksdb"
    if _LOCALDISK.intersection(names):
        return "localdisk"
    raise errors.SpoolMissing(f"{directory} holds neither a RocksDB nor a LocalDisk spool")
