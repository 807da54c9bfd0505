"""The stream of one spool into one vault: round by round, read what changed, seal it, and offer it to the vault.

An epoch is a run of segments without a gap. Reading goes on behind the last segment that was sealed; after a crash,
behind the last one that is durable (`progress.py`). Whatever makes that impossible begins a new epoch, which counts
only with a base of its own: it is due at once, and the reason is recorded.

Where a base meets the stream: the numbers before `begin` were read before the base was begun, so the base knows them;
`whole` is the first number whose reading begins after the base's spool was stored, so a state that has it knows
everything that the base knows. In between both may know the same: changes are absolute, repeating them is harmless.
`begin` is not the number that comes next, but the one that the kept progress says: after a crash the numbers from there
on are given anew, to what is read then, and that may be younger than the base.
The vault is never waited for here: `question.py`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from kumodr import errors
from kumodr.clock import Clock, text_of_time, time_of_text
from kumodr.plan.model import Plan
from kumodr.protect.backlog import Backlog
from kumodr.protect.figures import Board
from kumodr.protect.log_tail import LogTail
from kumodr.protect.opening import CannotGoOn, Resumed, begin, confirmed, free_epoch, resume, source_at
from kumodr.protect.pause import Pause
from kumodr.protect.progress import BaseDue, BaseFacts, Progress, load_progress, why_not_kept
from kumodr.protect.question import Question
from kumodr.protect.segment_writer import SegmentWriter
from kumodr.protect.shipper import Shipment, Shipper
from kumodr.protect.source import Source, SourceLost
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import Vault
from kumodr.vault.segment import Content

PIECE = 8 << 20
_IN_MEMORY = 32 << 20
_FARTHEST_BEHIND = 1 << 30
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)


class Stream:
    """Given the plan, an open vault and the node's key. `round` again and again; `finish` at the end."""

    def __init__(
        self,
        plan: Plan,
        vault: Vault,
        key: NodeKey,
        board: Board,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        spool = plan.components.spool
        if spool is None:
            raise errors.SpoolMissing("the plan names no spool")
        self._spool = spool
        self._logs = plan.components.logs.directories if plan.components.logs else ()
        self._protect = plan.protect
        self._vault = vault
        self._key = key
        self._state = Path(plan.state)
        self._clock = clock
        self._board = board
        self._say = say
        self._backlog = Backlog(self._state, plan.protect.backlog)
        self._shipper = Shipper(vault, self._backlog, key.public)
        self._progress: Progress | None = None
        self._epoch, self._kept = 0, 1
        self._writer: SegmentWriter | None = None
        self._source: Source | None = None
        self._tail: LogTail | None = None
        self._position: Progress | None = None
        self._taken, self._behind = clock(), 0
        self._shipped_at = 0.0
        self._joined = False
        self._due: tuple[str, str] | None = None
        self._why: tuple[str, str] | None = None
        self._asked_epoch: Question[int] | None = None
        self._asked: Question[Resumed] | None = None
        self._pause = Pause(_PAUSES)
        self._short_lived = Pause(_PAUSES)

    def start(self) -> None:
        """Begin to ship what is offered. Nobody else uses the state directory from now on. Raise DiskFull."""
        self._backlog.load()
        self._progress = load_progress(self._state, self._vault.id)
        self._epoch = self._progress.epoch if self._progress else 0
        self._shipper.start()

    def round(self) -> None:
        """Read, seal and offer what changed, and take note of what the vault acknowledged since."""
        begun = time.monotonic()
        self._collect()
        if self._shipper.broken is not None:
            raise self._shipper.broken
        if self._shipper.ended is not None:
            self._give_up(*self._shipper.ended)
        if (self._source is not None or self._open()) and self._may_read():
            self._read_round()
        self._publish(time.monotonic() - begun)

    def acknowledge(self, seconds: float) -> None:
        """Wait until the vault has what was offered, at most so long, and take note of it."""
        self._shipper.wait_until_empty(seconds, self.hold)
        self._collect()
        self._publish(self._board.now.round_seconds)

    def hold(self) -> None:
        """Keep hold of what may be gone before the next round; to be called several times between two."""
        if self._source is not None:
            self._source.hold()

    def base_due(self) -> BaseDue | None:
        """Return why a base is due now, if one is."""
        if self._writer is None or self._progress is None or self._asked is not None:
            return None
        cause = self._due or self._progress.why_again(self._clock(), self._protect.base_every)
        return BaseDue(*cause, self._writer.epoch, self._kept) if cause else None

    def expect(self, ids: Iterable[bytes]) -> None:
        """Given the ids that a base holds, decide those that were never seen with the next round."""
        if self._source is not None:
            self._source.expect(ids)

    def number_of_next_round(self, epoch: int) -> int | None:
        """Given the epoch that a base was begun in, return the number of the next segment; None where it is over."""
        return self._writer.next if self._writer is not None and self._writer.epoch == epoch else None

    def base_stored(self, epoch: int, base: BaseFacts) -> None:
        """Given a base that was committed, let the stream go on from it."""
        if self._progress is None or self._progress.epoch != epoch:
            return
        self._due = None
        self._progress = replace(self._progress, base=base, since_base=0)
        self._save()
        if self._board.now.acknowledged >= base.whole:
            self._join()
        self._board.update(base=base.point, base_taken=base.taken)

    def finish(self, seconds: float = 5.0) -> None:
        """Read once more, let the vault take what it takes in that time, and keep the rest on disk."""
        if self._source is not None and self._may_read():
            self._read_round()
        self._shipper.wait_until_empty(seconds)
        self._collect()
        try:
            self._keep(self._shipper.spill())
        except (errors.BacklogFull, errors.DiskFull) as error:
            self._say(str(error))
        self._publish(self._board.now.round_seconds)
        self._close_source()
        self._shipper.stop()
        self._board.update(state="stopped", time=text_of_time(self._clock()))

    def _read_round(self) -> None:
        try:
            self._read()
        except SourceLost as reason:
            joined = self._joined
            self._give_up("spool", str(reason))
            if not joined:
                self._short_lived.begin()
        except errors.SpoolUnreadable as error:
            self._close_source()
            self._postpone(error)
        except (errors.BacklogFull, errors.DiskFull) as error:
            self._give_up("backlog", str(error))
            self._postpone(error)

    def _read(self) -> None:
        source, writer, tail = self._source, self._writer, self._tail
        assert source is not None and writer is not None and tail is not None  # noqa: S101 — opened together
        if not source.is_due():
            return
        taken = self._taken = max(self._clock(), self._taken)
        shipped = False
        for piece in source.pieces(PIECE):
            logs = () if piece.partial else tuple(tail.pieces(PIECE))
            if not (shipped or piece.partial or piece.meta or piece.data or logs or self._heartbeat_due()):
                break
            after = {"spool": source.position(), "logs": tail.position(), "taken": text_of_time(taken)}
            content = Content(piece.meta, piece.data, logs)
            self._offer(writer.seal(content, taken, partial=piece.partial, facts=piece.counts(), after=after))
            shipped = True
        if shipped:
            rollup = writer.rollup(taken)
            if rollup is not None and self._backlog.size == 0:
                self._shipper.offer(rollup)
        elif self._joined and not self._shipper.waiting():
            self._board.update(recoverable_until=text_of_time(min(taken, self._clock())))
        self._behind = source.behind()
        if self._behind > _FARTHEST_BEHIND:
            raise SourceLost(f"reading is {self._behind:,} bytes behind the mail server")

    def _offer(self, shipment: Shipment) -> None:
        """Offer a segment, and put what the vault does not take in time on disk, so that memory stays bounded."""
        self._shipper.offer(shipment)
        self._shipped_at = time.monotonic()
        if self._progress is not None and shipment.after is not None:
            self._position = (self._position or self._progress).behind(shipment.after)
        waiting = sum(each.size for each in self._shipper.waiting() if each.pieces is not None)
        if waiting > _IN_MEMORY or self._shipper.stalled_for() > max(2.0, 2 * self._protect.every):
            self._keep(self._shipper.spill())

    def _keep(self, last: Shipment | None) -> None:
        """Given the last segment that was spilled, note that everything up to it is durable."""
        if last is not None and last.after is not None and self._progress is not None:
            self._advance(last)

    def _advance(self, shipment: Shipment) -> None:
        progress, after = self._progress, shipment.after
        if progress and after and shipment.epoch == progress.epoch and after["next"] > progress.next:
            self._progress = progress.behind(after)
            self._save()

    def _collect(self) -> None:
        """Take note of what the vault acknowledged: figures and progress come from nothing else."""
        done, progress = self._shipper.acknowledged(), self._progress
        own = [each for each in done if not each.rollup and progress and each.epoch == progress.epoch]
        self._board.count(sum(each.size for each in done), [each.facts for each in own], self._shipper.errors)
        if progress is None or not own:
            return
        until = self._board.now.recoverable_until
        for each in own:
            if progress.base is not None and each.number >= progress.base.whole:
                self._join()
            if self._joined and not each.partial:
                until = text_of_time(min(each.taken, self._clock()))
        self._progress = replace(progress, since_base=progress.since_base + sum(each.size for each in own))
        self._advance(own[-1])
        self._board.update(acknowledged=own[-1].number, recoverable_until=until)

    def _open(self) -> bool:
        """Go on from the last position, or begin a new epoch; return whether reading can begin."""
        if not (self._pause.is_over and self._short_lived.is_over):
            return False
        try:
            if self._writer is not None and self._position is not None:
                self._read_from(self._position)
            else:
                self._open_epoch()
        except SourceLost as reason:
            self._give_up("spool", str(reason))
            self._postpone(errors.SpoolChanging(f"the spool cannot be followed ({reason})"))
        except errors.SpoolNotFollowed:
            raise
        except errors.KumodrError as error:
            self._postpone(error)
        else:
            self._pause.forget()
        return self._source is not None

    def _open_epoch(self) -> None:
        if self._why is None:
            try:
                resumed = resume(self._progress, self._backlog, self._vault, self._key)
            except CannotGoOn as reason:
                self._give_up(reason.cause, reason.reason)
            else:
                self._go_on(resumed)
                return
        asked = self._asked_epoch = self._asked_epoch or Question(self._free_epoch, _PAUSES)
        epoch = asked.answer(self.hold)
        if epoch is None:
            self._board.update(trouble=asked.trouble)
            return
        self._asked_epoch = None
        cause, reason = self._why or ("first", "this spool is not protected yet")
        progress = begin(epoch, self._spool, self._vault)
        self._read_from(progress, begins=True)
        if self._source and self._tail:
            progress = replace(progress, spool=self._source.position(), logs=self._tail.position())
        self._write_from(progress)
        self._kept = 1
        self._save()
        self._joined, self._due, self._why = False, (cause, reason), None
        self._board.update(acknowledged=0)
        self._board.note_rebase(text_of_time(self._clock()), cause, reason)
        self._say(f"a new base is due: {reason}")

    def _free_epoch(self) -> int:
        return free_epoch(self._epoch, self._vault, self._key)

    def _go_on(self, resumed: Resumed) -> None:
        """Hold the spool's logs, and ask the vault whether the epoch goes on."""
        progress, self._kept = resumed.progress, self._progress.next if self._progress else 1
        self._read_from(progress)
        self._shipper.hold_back(True)
        for each in resumed.waiting:
            self._shipper.offer(each)
        if progress.taken:
            self._taken = max(self._taken, time_of_text(progress.taken))
        self._asked, self._joined = Question(lambda: confirmed(resumed, self._vault, self._key), _PAUSES), False
        self._write_from(progress)

    def _may_read(self) -> bool:
        """Whether the vault confirmed that the epoch goes on, or takes so long that reading must not wait for it."""
        if self._asked is None:
            return True
        try:
            resumed = self._asked.answer(self.hold)
            if resumed is None:
                self._board.update(trouble=self._asked.trouble)
                return self._asked.is_late
            self._confirmed(resumed)
        except CannotGoOn as reason:
            self._give_up(reason.cause, reason.reason)
            return False
        return True

    def _write_from(self, progress: Progress) -> None:
        self._writer = SegmentWriter(self._vault, self._key, progress.epoch, progress.next, progress.previous)
        self._epoch, self._progress, self._position = progress.epoch, progress, progress

    def _confirmed(self, resumed: Resumed) -> None:
        progress, base = resumed.progress, resumed.progress.base
        if progress.next > resumed.first and not resumed.waiting:
            if self._position is not self._progress:
                raise CannotGoOn("state lost", f"the vault has segment {progress.next - 1}, which was not noted")
            self._write_from(progress)
        self._asked = None
        self._shipper.hold_back(False)
        unacknowledged = resumed.waiting[0].number if resumed.waiting else progress.next
        self._joined = base is not None and unacknowledged > base.whole
        self._board.update(acknowledged=unacknowledged - 1, trouble=None)
        if base is not None:
            self._board.update(base=base.point, base_taken=base.taken)

    def _read_from(self, progress: Progress, *, begins: bool = False) -> None:
        self._tail = LogTail(self._logs, progress.logs)
        self._source = source_at(progress, self._spool, self._state, begins=begins)
        self._board.update(epoch=progress.epoch, trouble=None)

    def _give_up(self, cause: str, reason: str) -> None:
        """End the epoch: what was not shipped of it is not worth shipping without what cannot be read.

        That it ended is durable before the backlog is cleared: a crash in between must not find a gap in it.
        """
        self._close_source()
        self._shipper.forget()
        self._shipper.hold_back(False)
        for question in filter(None, (self._asked, self._asked_epoch)):
            question.forget()
        self._asked = self._asked_epoch = None
        if self._progress is not None:
            self._epoch = max(self._epoch, self._progress.epoch)
            self._progress = replace(self._progress, spool=None)
            self._save()
        self._backlog.clear()
        self._writer = self._position = self._progress = None
        self._joined, self._why = False, (cause, reason)

    def _save(self) -> None:
        if self._progress is None:
            return
        refusal = why_not_kept(self._state, self._progress)
        if refusal is None:
            self._kept = self._progress.next
        else:
            self._say(refusal)

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
        self._source, self._behind = None, 0

    def _postpone(self, error: errors.KumodrError) -> None:
        self._board.update(trouble=str(error))
        self._pause.begin()

    def _join(self) -> None:
        """Note that the vault gives back what the stream has."""
        self._joined = True
        self._short_lived.forget()

    def _heartbeat_due(self) -> bool:
        """Whether an empty segment is worth it: now and then, and to finish the join of a new base."""
        base = self._progress.base if self._progress else None
        joins = base is not None and self._writer is not None and self._writer.next <= base.whole
        return joins or time.monotonic() - self._shipped_at >= self._protect.heartbeat

    def _publish(self, seconds: float) -> None:
        trouble = self._shipper.trouble
        messages, size = self._shipper.at_risk()
        known = self._writer is not None and self._joined
        reads = self._source is not None and self._asked is None
        behind = self._asked or self._backlog.size or (trouble is not None and self._shipper.waiting())
        state = "behind" if behind else "protected" if self._joined else "waiting for a base"
        none = "lost" if self._board.now.rebases else "starting"
        self._board.update(
            state=state if self._writer else none,
            time=text_of_time(self._clock()),
            backlog_bytes=self._backlog.size,
            messages_at_risk=messages if known else None,
            bytes_at_risk=size + self._behind if known else None,
            round_seconds=round(seconds, 4),
            trouble=str(trouble) if trouble else None if reads else self._board.now.trouble,
        )
