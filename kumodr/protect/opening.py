"""Where a stream goes on when its process starts, or where a new epoch of it begins.

What is asked of the vault for it (`confirmed`, `free_epoch`) may take as long as the vault likes, and stands apart from
what is known here.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from kumodr import errors
from kumodr.plan.model import SpoolPlan
from kumodr.protect.backlog import Backlog, whole
from kumodr.protect.local_source import LocalSource
from kumodr.protect.progress import Progress
from kumodr.protect.rocks_source import RocksSource, present_of
from kumodr.protect.shipper import Shipment
from kumodr.protect.source import Source, SourceLost
from kumodr.spool.kind import kind_of
from kumodr.vault.keys import NodeKey
from kumodr.vault.nodes import register
from kumodr.vault.open import Vault
from kumodr.vault.segment import LARGEST, LARGEST_HEAD, head_of, name_of, prefix_of
from kumodr.vault.stream import NOT_GOOD, part_of_name


class CannotGoOn(Exception):
    """A new epoch must begin: the kind of cause, and the reason in words."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason


@dataclass(frozen=True)
class Resumed:
    """Where an epoch goes on, and the segments in the backlog that come first.

    The vault has everything before number `first`, the last of it with the hash `before`, if it is as this node knows.
    """

    progress: Progress
    waiting: tuple[Shipment, ...]
    first: int
    before: str | None


def resume(progress: Progress | None, backlog: Backlog, vault: Vault, key: NodeKey) -> Resumed:
    """Given what an earlier run kept, return where its epoch goes on, if the vault confirms it. Raise CannotGoOn.

    What is in the backlog from the next number on was never noted: it is read again from the spool.
    """
    if progress is None:
        raise CannotGoOn("first", "this spool is not protected yet, or how far it was is lost")
    if progress.spool is None:
        raise CannotGoOn("restart", "what was known of the spool ended with the process")
    there = set(backlog.numbers(progress.epoch))
    first = progress.next
    while first - 1 in there:
        first -= 1
    for number in there - set(range(first, progress.next)):
        backlog.remove(progress.epoch, number)
    waiting: list[Shipment] = []
    previous = progress.previous
    for number in range(progress.next - 1, first - 1, -1):
        shipment, previous = _waiting(progress.epoch, number, previous, backlog, vault, key)
        waiting.insert(0, shipment)
    return Resumed(progress, tuple(waiting), first, previous)


def confirmed(resumed: Resumed, vault: Vault, key: NodeKey) -> Resumed:
    """Given where an epoch would go on, ask the vault and return where it does. Raise CannotGoOn, the store's errors.

    In front of what waits, or of the next number, the vault must have the epoch's segment: putting others behind a gap
    would go on with a stream that nobody can read past it. The node's key is made known to the vault.
    """
    register(vault, key)
    progress, first = resumed.progress, resumed.first
    if first > 1 and _hash_in_vault(vault, key, progress.epoch, first - 1) != resumed.before:
        raise CannotGoOn("state lost", f"segment {first - 1} is neither in the vault nor in the backlog")
    return resumed if resumed.waiting else replace(resumed, progress=_adopted(progress, vault, key))


def free_epoch(number: int, vault: Vault, key: NodeKey) -> int:
    """Given the number of the epoch before, ask the vault and return the next one. Raise the store's errors.

    Where it is not known (0), every name is looked at: an epoch may have lost its beginning to pruning, and no number
    is used again. The node's key is made known to the vault.
    """
    register(vault, key)
    names = vault.store.list(prefix_of(key.node)) if number == 0 else ()
    epoch = max((part.epoch for part in map(part_of_name, names) if part), default=number) + 1
    while vault.store.size(name_of(key.node, epoch, 1, 1)) is not None:
        epoch += 1
    return epoch


def begin(epoch: int, spool: SpoolPlan, vault: Vault) -> Progress:
    """Given the number of a new epoch, return its progress: it begins at the present.

    Raise SpoolNotFollowed, SourceLost, the spool's errors.
    """
    meta, data = Path(spool.meta), Path(spool.data)
    kinds = {kind_of(path, spool.kind) for path in (meta, data)}
    if len(kinds) > 1:
        raise errors.SpoolNotFollowed(f"the halves of the spool at {spool.meta} are of two kinds")
    position = present_of(meta, data) if kinds == {"rocksdb"} else None
    return Progress(vault.id, epoch, 1, None, position, None, None)


def source_at(progress: Progress, spool: SpoolPlan, state: Path, *, begins: bool) -> Source:
    """Given progress, return what reads the spool from there; where an epoch `begins`, what is there now is known.

    Raise SourceLost.
    """
    meta, data = Path(spool.meta), Path(spool.data)
    if progress.spool is not None and "journal" in progress.spool:
        return LocalSource(meta, data, state, progress.spool)
    if progress.spool is not None:
        try:
            return RocksSource(meta, data, progress.spool)
        except (ValueError, KeyError, TypeError) as error:
            raise SourceLost("the position that was kept cannot be read") from error
    if not begins:
        raise SourceLost("what was known of the spool is lost")
    source = LocalSource(meta, data, state)
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
        except NOT_GOOD:
            head = None
        if head is None or head.signed_by != key.public or head.previous != progress.previous:
            raise CannotGoOn("another writer", f"somebody else stored {name}")
        progress = replace(progress, next=progress.next + 1, previous=head.hash)


def _hash_in_vault(vault: Vault, key: NodeKey, epoch: int, number: int) -> str | None:
    """Return the hash of a segment's head as the vault has it; None where it has none, or no good one."""
    name = name_of(key.node, epoch, number, number)
    try:
        return head_of(vault.store.start(name, 2 * LARGEST_HEAD)[0], name, vault.id).hash
    except NOT_GOOD:
        return None


def _waiting(
    epoch: int, number: int, expected: str | None, backlog: Backlog, vault: Vault, key: NodeKey
) -> tuple[Shipment, str | None]:
    """Return a segment of the backlog, which must have the hash that is expected, and the hash of the one before it."""
    name = name_of(key.node, epoch, number, number)
    try:
        data = backlog.read(epoch, number)
        head = whole(data, name, vault.id)
    except (OSError, *NOT_GOOD) as error:
        raise CannotGoOn("state lost", f"segment {number} of the backlog cannot be read, or is damaged") from error
    if head.hash != expected:
        raise CannotGoOn("state lost", f"segment {number} of the backlog is another one")
    facts = {"messages": 0, "bytes": 0, **head.facts}
    shipment = Shipment(name, epoch, number, len(data), head.hash, head.taken, partial=head.partial, facts=facts)
    return shipment, head.previous
