"""Where a stream goes on when its process starts, or where a new epoch of it begins."""

from dataclasses import dataclass, replace
from pathlib import Path

from kumodr import errors
from kumodr.plan.model import SpoolPlan
from kumodr.protect.backlog import Backlog
from kumodr.protect.local_source import LocalSource
from kumodr.protect.progress import Progress
from kumodr.protect.rocks_source import RocksSource, present_of
from kumodr.protect.shipper import Shipment
from kumodr.protect.source import Source, SourceLost
from kumodr.spool.kind import kind_of
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.segment import LARGEST, head_of, name_of


class CannotGoOn(Exception):
    """A new epoch must begin: the kind of cause, and the reason in words."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason


@dataclass(frozen=True)
class Resumed:
    """Where an epoch goes on, and the segments in the backlog that come first."""

    progress: Progress
    waiting: tuple[Shipment, ...]


def resume(progress: Progress | None, backlog: Backlog, vault: Vault, key: NodeKey) -> Resumed:
    """Given what an earlier run kept, return where its epoch goes on. Raise CannotGoOn, and the store's errors.

    What is in the backlog from the next number on was never noted: it is read again from the spool.
    """
    if progress is None:
        raise CannotGoOn("first", "this spool is not protected yet, or how far it was is lost")
    if progress.spool is None:
        raise CannotGoOn("restart", "what was known of the spool ended with the process")
    numbers = backlog.numbers(progress.epoch)
    for number in [each for each in numbers if each >= progress.next]:
        backlog.remove(progress.epoch, number)
    numbers = [each for each in numbers if each < progress.next]
    if numbers and numbers != list(range(numbers[0], progress.next)):
        raise CannotGoOn("state lost", "the backlog has a gap")
    if not numbers:
        progress = _adopted(progress, vault, key)
    return Resumed(progress, tuple(_waiting(progress.epoch, number, backlog, vault, key) for number in numbers))


def begin(number: int, spool: SpoolPlan, vault: Vault, key: NodeKey) -> Progress:
    """Given the number of the epoch before, return the progress of a new one, which begins at the present.

    Raise SpoolNotFollowed, SourceLost, the spool's errors and the store's.
    """
    epoch = number + 1
    while vault.store.size(name_of(key.node, epoch, 1, 1)) is not None:
        epoch += 1
    meta, data = Path(spool.meta), Path(spool.data)
    kinds = {kind_of(path, spool.kind) for path in (meta, data)}
    if len(kinds) > 1:
        raise errors.SpoolNotFollowed(f"the halves of the spool at {spool.meta} are of two kinds")
    position = present_of(meta, data) if kinds == {"rocksdb"} else None
    return Progress(vault.id, epoch, 1, None, position, None, None)


def source_at(progress: Progress, spool: SpoolPlan, *, begins: bool) -> Source:
    """Given progress, return what reads the spool from there; where an epoch `begins`, what is there now is known.

    Raise SourceLost.
    """
    meta, data = Path(spool.meta), Path(spool.data)
    if progress.spool is not None:
        try:
            return RocksSource(meta, data, progress.spool)
        except (ValueError, KeyError, TypeError) as error:
            raise SourceLost("the position that was kept cannot be read") from error
    if not begins:
        raise SourceLost("what was known of the spool is lost")
    source = LocalSource(meta, data)
    source.note_present()
    return source


def _adopted(progress: Progress, vault: Vault, key: NodeKey) -> Progress:
    """Given progress, return it moved behind segments that an earlier run stored without living to note it.

    What they hold is sent again under the next number, for what was in them is known to who has an identity only.
    """
    while True:
        name = name_of(key.node, progress.epoch, progress.next, progress.next)
        if vault.store.size(name) is None:
            return progress
        try:
            head = head_of(vault.store.get(name, LARGEST), name, vault.id)
        except errors.ManifestForged:
            head = None
        if head is None or head.signed_by != key.public or head.previous != progress.previous:
            raise CannotGoOn("another writer", f"somebody else stored {name}")
        progress = replace(progress, next=progress.next + 1, previous=head.hash)


def _waiting(epoch: int, number: int, backlog: Backlog, vault: Vault, key: NodeKey) -> Shipment:
    name = name_of(key.node, epoch, number, number)
    try:
        data = backlog.read(epoch, number)
        head = head_of(data, name, vault.id)
    except (OSError, errors.ManifestForged) as error:
        raise CannotGoOn("state lost", f"segment {number} of the backlog cannot be read") from error
    facts = {"messages": 0, "bytes": 0, **head.facts}
    return Shipment(name, epoch, number, len(data), head.hash, head.taken, partial=head.partial, facts=facts)
