"""What must hold of every reconcile: against a model of what was sent, and killed between any two operations."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reconcile_samples import DISASTER, UNTIL, contents, planned, record, sets_of, site
from spool_samples import NOW, key, meta

from kumodr.reconcile.apply import apply
from kumodr.reconcile.treatments import STAYING
from kumodr.spool import quarantine
from kumodr.spool.metadata import parse

ADDRESSES = ["a@x.test", "b@x.test", "c@y.test", 'odd"; drop@ü.test', "=1+1@z.test"]
EARLY = UNTIL - timedelta(hours=2)


@dataclass(frozen=True)
class Message:
    """One message of the model: recipients, where it is, and what the log says of it."""

    number: int
    recipients: tuple[str, ...]
    in_meta: bool
    in_data: bool
    received_minutes: int | None
    ended: tuple[tuple[str, int], ...]
    """Address, and 0 for Delivery, 1 for Bounce."""

    ended_by: str | None
    tried_minutes: int | None
    tombstone: bool

    @property
    def key(self) -> bytes:
        return key(timedelta(hours=3), self.number)

    @property
    def left(self) -> tuple[str, ...]:
        ends = {address for address, _ in self.ended}
        return tuple(each for each in self.recipients if each not in ends)

    @property
    def is_finished(self) -> bool:
        return self.tombstone or self.ended_by is not None or not self.left


@st.composite
def messages(draw: st.DrawFn) -> list[Message]:
    """Return some messages in any state, also those that no server would leave."""
    found: list[Message] = []
    for number in range(draw(st.integers(1, 24))):
        recipients = draw(st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4, unique=True))
        ended = draw(st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True))
        found.append(
            Message(
                number=number,
                recipients=tuple(recipients),
                in_meta=draw(st.booleans()),
                in_data=draw(st.booleans()),
                received_minutes=draw(st.none() | st.integers(-60, 9)),
                ended=tuple((each, draw(st.integers(0, 1))) for each in ended),
                ended_by=draw(st.sampled_from((None, None, None, "Expiration", "AdminBounce", "XferOut"))),
                tried_minutes=draw(st.none() | st.integers(-40, 0)),
                tombstone=draw(st.booleans()) and draw(st.booleans()),
            )
        )
    return found


def records_of(each: Message) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    if each.received_minutes is not None:
        at = UNTIL + timedelta(minutes=each.received_minutes)
        found.append(record("Reception", each.key, each.recipients, min(at, UNTIL + timedelta(minutes=9))))
    found += [record(("Delivery", "Bounce")[kind], each.key, [address]) for address, kind in each.ended]
    if each.ended_by is not None:
        found.append(record(each.ended_by, each.key, each.recipients))
    if each.tried_minutes is not None and each.left:
        found.append(record("TransientFailure", each.key, each.left, UNTIL + timedelta(minutes=each.tried_minutes)))
    return found


def spooled(found: Sequence[Message]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    one_or_many = {each.number: each.recipients[0] if len(each.recipients) == 1 else each.recipients for each in found}
    return (
        {each.key: meta(recipient=one_or_many[each.number]) for each in found if each.in_meta},
        {each.key: b"body %d" % each.number for each in found if each.in_data},
    )


@pytest.mark.parametrize("kind", ["rocksdb", "localdisk"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=messages(), choice=st.sampled_from(("send", "hold", "drop")))
def test_nothing_ended_stays_nothing_without_evidence_goes_and_every_message_is_somewhere(
    tmp_path_factory: pytest.TempPathFactory, kind: str, found: list[Message], choice: str
) -> None:
    metadata, bodies = spooled(found)
    records = [each for message in found for each in records_of(message)]
    tombstones = [each.key for each in found if each.tombstone]
    spool = site(tmp_path_factory.mktemp("model") / "r", kind, metadata, bodies, records, tombstones)
    with planned(spool, uncertain=choice) as plan:
        sets = sets_of(plan)
        lost = {each.id: each for each in plan.lost()}
        apply(plan, spool / "meta", spool / "data", "auto", lambda *_: None)
    after, bodies_after = contents(spool)
    everywhere = {each.key.hex() for each in found if each.in_meta or each.in_data}
    assert set().union(*sets.values()) == everywhere
    assert sum(map(len, sets.values())) == len(everywhere)
    where = {identifier: name for name, ids in sets.items() for identifier in ids}
    for each in found:
        name = each.key.hex()
        whole = each.in_meta and each.in_data
        if whole and each.is_finished:
            assert where[name] == "finished"
        elif whole:
            assert where[name] in (*STAYING, "uncertain")
            if choice == "send" or where[name] in STAYING:
                assert parse(after[name]).recipients == each.left
                assert bodies_after[name] == bodies[each.key]
        if name in after:
            assert whole
            assert not each.is_finished
            assert set(parse(after[name]).recipients).isdisjoint(address for address, _ in each.ended)
        if where.get(name) == "to_send":
            assert each.tried_minutes is not None
            assert UNTIL + timedelta(minutes=each.tried_minutes + 20) > DISASTER
        is_missing = not each.is_finished and each.received_minutes is not None and not (each.in_meta and each.in_data)
        assert (name in lost) == is_missing
        if is_missing and not each.in_meta:
            assert lost[name].recipients == tuple(sorted(each.left))
            assert lost[name].certain == ((each.received_minutes or 0) > 0)
    assert set(after) == set(bodies_after)
    with planned(spool, uncertain=choice) as again:
        assert (again.move_count, again.trim_count) == (0, 0)
        assert {each.id for each in again.lost()} == set(lost)
    held = {each.id for each in quarantine.each_listed(spool / "meta")}
    quarantine.put_back(sorted(held), spool / "meta", spool / "data")
    assert contents(spool) == (
        {each.hex(): raw for each, raw in metadata.items()},
        {each.hex(): body for each, body in bodies.items()},
    )


KILLED = """
import os, pickle, shutil, signal, sys
from pathlib import Path
from kumodr.spool import quarantine, writer
from reconcile_samples import contents, planned
from kumodr.reconcile.apply import apply
import kumodr.reconcile.plan, kumodr.spool.snapshot, kumodr.spool.validation

source, work, number = Path(sys.argv[1]), Path(sys.argv[2]), 0
CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.chown")

def do(root, at):
    done = 0
    def step():
        nonlocal done
        done += 1
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)
    def watch(event, arguments):
        path = arguments[0] if arguments else None
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 3):
            if isinstance(path, (str, os.PathLike)) and str(root) in os.fspath(path):
                step()
    real = writer.RocksWriter._write
    def write(self, batch):
        step()
        real(self, batch)
        step()
    with planned(root / "spool", uncertain="hold") as plan:
        writer.RocksWriter._write = write
        sys.addaudithook(watch)
        apply(plan, root / "spool" / "meta", root / "spool" / "data", "auto", lambda *_: None)

def state(root):
    held = {}
    for each in quarantine.each_listed(root / "spool" / "meta"):
        parts = {path.name: path.read_bytes() for path in each.folder.iterdir() if path.name != "reason.json"}
        held.setdefault((each.id, each.reason), []).append(sorted(parts.items()))
    return contents(root / "spool"), held

def child(act):
    process = os.fork()
    if process == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def fresh():
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)

def first():
    do(work, 0)
    Path(sys.argv[3]).write_bytes(pickle.dumps(state(work)))

def look():
    (meta, data), held = state(work)
    parts = [dict(each) for many in held.values() for each in many]
    for identifier, raw in before[0].items():
        assert raw == meta.get(identifier) or any(raw == each.get("meta.json") for each in parts), identifier
    for identifier, body in before[1].items():
        assert body == data.get(identifier) or any(body == each.get("body.eml") for each in parts), identifier
    do(work, 0)
    assert state(work) == expected

fresh()
assert child(lambda: Path(sys.argv[3]).write_bytes(pickle.dumps(contents(work / "spool")))) == 0
before = pickle.loads(Path(sys.argv[3]).read_bytes())
assert child(first) == 0
expected = pickle.loads(Path(sys.argv[3]).read_bytes())
while True:
    number += 1
    fresh()
    code = child(lambda: do(work, number))
    if code == 0:
        break
    assert code == -signal.SIGKILL, (number, code)
    assert child(look) == 0, number
print(number - 1)
"""


@pytest.mark.parametrize("kind", ["rocksdb", "localdisk"])
def test_killed_between_any_two_operations_it_ends_the_same_and_nothing_is_lost(tmp_path: Path, kind: str) -> None:
    both, finished, held, bare = (key(timedelta(hours=1), number) for number in range(4))
    many = meta(recipient=["a@x.test", "b@x.test"])
    metadata = {both: many, finished: meta(), held: meta(), bare: meta()}
    bodies = {each: b"body of " + each for each in metadata if each != bare}
    records = [
        *(record("Reception", each, at=EARLY) for each in metadata),
        record("Delivery", both, "a@x.test"),
        record("Delivery", finished),
    ]
    site(tmp_path / "source", kind, metadata, bodies, records)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "source", tmp_path / "work", tmp_path / "state"],
        env={
            "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}",
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 20


def test_a_message_that_stays_after_all_is_not_left_in_quarantine(tmp_path: Path) -> None:
    """A run that held it was killed before the spool let go of it, and the next one is to send it."""
    one = key(timedelta(hours=1))
    spool = site(tmp_path / "r", "localdisk", {one: meta()}, {one: b"x"})
    folder = quarantine.folder_of(spool / "meta") / one.hex()
    with planned(spool, uncertain="hold") as plan:
        apply(plan, spool / "meta", spool / "data", "auto", lambda *_: None)
    copy = {path.name: path.read_bytes() for path in folder.iterdir()}
    quarantine.put_back([one.hex()], spool / "meta", spool / "data")
    folder.mkdir()
    for name, content in copy.items():
        (folder / name).write_bytes(content)
    with planned(spool) as plan:
        apply(plan, spool / "meta", spool / "data", "auto", lambda *_: None)
    assert quarantine.listed(spool / "meta") == ()
    assert set(contents(spool)[0]) == {one.hex()}
    assert NOW > DISASTER
