"""A whole lab site under `kumodr protect`, and whatever may happen to it, in any order: a state machine.

Mail to one and to several, as one message each and as one for all; a sink that takes, defers and refuses; a mail server
that is stopped, killed under load, compacted, and whose small buffers turn its logs all the time; a `kumodr protect`
that is stopped and killed, alone and with the server; a base every few seconds, and backups by hand; a vault that goes
away, becomes read-only, is full.

At every step it is noted what `kumodr protect` says can be recovered. Again and again the newest state, or one that was
noted at any time before, is restored, judged against what the server acknowledged and the sink took, reconciled, judged
again, and put back (`lab_world.py`). At the end the site is lost, and the reconciled copy delivers the rest.

KUMODR_MACHINE sets how many runs there are for each kind of spool, KUMODR_TEST_KUMOD a real mail server.
"""

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import httpx
import pytest
from disks import mounted_if_allowed
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from lab_world import LabWorld
from servers import wait_for
from streams import content

from kumodr.lab.options import Options
from kumodr.protect.figures import published

RUNS = int(os.environ.get("KUMODR_MACHINE", "1"))
STEPS = 140
APART = 4
"""So many steps at least lie between two that start processes or restore."""

RECIPIENTS = st.sampled_from(["ok@a.test", "ok@b.test", "defer@a.test", "refuse@c.test"])
SEVERAL = st.lists(RECIPIENTS, min_size=2, max_size=4, unique=True)
SIZES = st.sampled_from([100, 2_000, 30_000])
TRUTH = st.booleans()
CHOICES = st.sampled_from(["send", "hold", "drop"])
LOOP = {"every": 0.2, "base_every": 25.0, "backlog": 4_000_000}


@dataclass(frozen=True)
class Happening:
    """Something that may happen to the site, when it may, whether it takes long, and what is drawn for it."""

    act: Callable[..., None]
    when: Callable[[Any], bool]
    long: bool
    drawn: Mapping[str, st.SearchStrategy[Any]]

    def __repr__(self) -> str:
        return self.act.__name__


HAPPENINGS: list[Happening] = []


def happens(
    when: Callable[[Any], bool] = lambda _: True, *, long: bool = False, **drawn: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Note a method as something that may happen. Of rules hypothesis would leave out half in each run."""

    def noted(act: Callable[..., None]) -> Callable[..., None]:
        HAPPENINGS.append(Happening(act, when, long, drawn))
        return act

    return noted


class Site(RuleBasedStateMachine):
    options: ClassVar[Options]
    counts: ClassVar[Counter[str]]
    world: LabWorld

    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        self.fault: AbstractContextManager[None] | None = None
        self.away = False
        self.since_long = 0

    @initialize(number=st.integers(0, 1 << 30))
    def begin(self, number: int) -> None:
        assume(number > 0)  # else it is the simplest run there is: one thing again and again
        folder = Path(tempfile.mkdtemp(prefix="kumodr-site-"))
        self.held.callback(shutil.rmtree, folder)
        disk = self.held.enter_context(mounted_if_allowed(folder / "disk", "96m"))
        self.world = LabWorld(folder, self.options, LOOP, disk)
        self.held.callback(self.world.close)
        self.world.protect()
        self.world.all_is_protected()

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        long = self.since_long >= APART
        possible = [each for each in HAPPENINGS if (long or not each.long) and each.when(self)]
        chosen = data.draw(st.sampled_from(possible))
        words = {name: data.draw(strategy) for name, strategy in chosen.drawn.items()}
        self.counts[chosen.act.__name__] += 1
        self.since_long = 0 if chosen.long else self.since_long + 1
        chosen.act(self, **words)

    @happens(lambda self: self.world.serves, recipient=RECIPIENTS, size=SIZES, count=st.integers(1, 8))
    def mail_to_one(self, recipient: str, size: int, count: int) -> None:
        self.world.post.one_by_one([recipient], size, count)

    @happens(lambda self: self.world.serves, recipients=SEVERAL, size=SIZES)
    def mail_to_several(self, recipients: list[str], size: int) -> None:
        self.world.post.one_by_one(recipients, size)

    @happens(lambda self: self.world.serves, recipients=SEVERAL, size=SIZES)
    def one_message_for_several(self, recipients: list[str], size: int) -> None:
        self.world.post.together(recipients, size)

    @happens(mode=st.sampled_from(["rules", "defer", "accept"]), share=st.sampled_from([0.3, 0.7, 0.0]))
    def the_sink_decides_otherwise(self, mode: str, share: float) -> None:
        self.world.site.sink_rules(mode=mode, defer_share=share)

    @happens(lambda self: self.world.serves and self.options.kind == "RocksDB", half=st.sampled_from(["meta", "data"]))
    def compaction(self, half: str) -> None:
        answer = httpx.post(f"{self.world.site.http}/api/admin/spool-compact/v1", json={"name": half}, timeout=10)
        assert answer.status_code == 200

    @happens(lambda self: self.world.protects)
    def a_round_passes(self) -> None:
        before = published(self.world.live.state)
        wait_for("a round", lambda: published(self.world.live.state) != before or not self.world.protects)

    @happens(lambda self: self.fault is None, long=True, kind=st.sampled_from(["away", "read-only", "full"]))
    def the_vault_fails(self, kind: str) -> None:
        world = self.world
        of_a_disk = {"read-only": world.vault_read_only, "full": world.vault_full} if world.disk else {}
        self.away = kind not in of_a_disk
        self.fault = of_a_disk.get(kind, world.vault_away)()
        self.fault.__enter__()

    @happens(lambda self: self.fault is not None)
    def the_vault_is_well_again(self) -> None:
        if self.fault is not None:
            self.fault.__exit__(None, None, None)
            self.fault, self.away = None, False

    @happens(lambda self: self.world.serves, long=True, killed=TRUTH, alone=TRUTH, count=st.integers(0, 60))
    def the_server_ends(self, killed: bool, alone: bool, count: int) -> None:
        """Under load; and where it does not end alone, `kumodr protect` is killed with it."""
        sent = len(self.world.post.sent)
        sending = self.world.post.in_the_background("ok@d.test", 4_000, 2 * count)
        wait_for("some of the load", lambda: len(self.world.post.sent) >= sent + count or not sending.is_alive())
        with self.world.server_down():
            if not alone and self.world.protects:
                self.world.live.kill()
            (self.world.site.kill if killed else self.world.site.stop)(["kumod"])
        sending.join()

    @happens(lambda self: not self.world.serves)
    def the_server_starts(self) -> None:
        self.world.site.start(["kumod"])

    @happens(lambda self: self.world.protects, long=True, killed=TRUTH)
    def kumodr_ends(self, killed: bool) -> None:
        if killed:
            self.world.live.kill()
        else:
            assert self.world.live.stop() < 15

    @happens(lambda self: not self.world.protects and not self.away)
    def kumodr_starts(self) -> None:
        """Where the vault is away it would say so and end, for the system to start it again."""
        self.world.protect()

    @happens(lambda self: self.fault is None, long=True)
    def a_backup_by_hand(self) -> None:
        self.world.kumodr("backup", "--plan", str(self.world.live.plan), good=(0, 7))

    @happens(lambda self: not self.away, long=True, which=st.integers(0, 1 << 20), choice=CHOICES)
    def restored_as_of_any_time(self, which: int, choice: str) -> None:
        self.world.check(self.world.marks[which % len(self.world.marks)], choice)

    @happens(lambda self: not self.away, long=True, choice=CHOICES)
    def restored_as_it_is(self, choice: str) -> None:
        self.world.check(None, choice)

    @happens(lambda self: self.fault is None and self.world.protects, long=True, choice=CHOICES)
    def restored_when_all_is_said_to_be_there(self, choice: str) -> None:
        self.world.all_is_protected()
        self.world.check(None, choice)

    @invariant()
    def what_is_said_is_noted(self) -> None:
        if hasattr(self, "world"):
            self.world.note_mark()

    def teardown(self) -> None:
        try:
            self.the_vault_is_well_again()
            if hasattr(self, "world"):
                self._the_end()
        finally:
            self.held.close()

    def _the_end(self) -> None:
        """The server is stopped, the vault has exactly its spool; the site is lost, the copy goes on in its place."""
        world = self.world
        if not world.protects:
            world.protect()
        if not world.serves:
            world.site.start(["kumod"])
        with world.server_down():
            world.site.stop(["kumod"])
        world.all_is_protected()
        assert world.live.stop() < 15
        meta, bodies = content(world.site.root / "spool")
        target = world.restored(None)
        world.holds_what_was_acknowledged(target, world.marks[-1].until, world.marks[-1].seen)
        assert world.before[0] == meta
        assert {key: world.before[1][key] for key in meta} == {key: bodies[key] for key in meta}
        world.reconciled(target, world.marks[-1].until, "send")
        world.sent_from(target)
        self.counts["messages judged"] += world.judged


@pytest.mark.trial
@pytest.mark.parametrize("kind", ["RocksDB", "LocalDisk"])
def test_whatever_happens_to_a_site(kind: Literal["RocksDB", "LocalDisk"], lab_options: Options) -> None:
    class Machine(Site):
        pass

    small = 64 << 10 if kind == "RocksDB" else None  # logs turn all the time
    Machine.options = replace(
        lab_options, kind=kind, retry_interval=1.0, max_retry_interval=2.0, write_buffer_size=small
    )
    Machine.counts = Counter()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
    judged = Machine.counts.pop("messages judged")
    sys.stdout.write(f"{judged} messages judged, {Machine.counts.total()} steps: {dict(Machine.counts)}\n")
    assert judged > 20 * RUNS
    assert Machine.counts.total() >= RUNS * (STEPS - 2)
