"""Backups: every byte comes back, nothing is done twice, and whatever dies leaves nothing that looks complete."""

import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import Bench, bench, capture_of, content_of, quiet, tree_files

from kumodr import errors
from kumodr.source import Gone, Held, SourceFile
from kumodr.vault import layout
from kumodr.vault.backup import begin_backup
from kumodr.vault.fetch import fetch
from kumodr.vault.index import sealed_facts
from kumodr.vault.keys import NodeKey
from kumodr.vault.points import survey
from kumodr.vault.verified import latest_verifications
from kumodr.vault.verify import Verification, record_verification, verify_deep, verify_shallow

NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) <= 255)
LARGE, PIECE = layout.LARGE, layout.LARGEST_PLAIN
SIZES = st.one_of(
    st.integers(0, 2000),
    st.builds(lambda base, step: base + step, st.sampled_from([LARGE, PIECE, 2 * PIECE]), st.integers(-1100, 1100)),
)


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    return bench(tmp_path)


def filled(folder: Path, seed: int = 1, count: int = 30) -> Path:
    chance = random.Random(seed)
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}").write_bytes(chance.randbytes(chance.randrange(20_000)))
    (folder / "large").write_bytes(chance.randbytes(3 * LARGE))
    return folder


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(NAMES, SIZES, max_size=8), seed=st.integers(0, 100))
def test_any_files_come_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, int], seed: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    made = bench(folder)
    content = random.Random(seed).randbytes(64)
    sources = [
        SourceFile(name, size=size, content=Held((content * (size // 64 + 1))[:size]), mtime_ns=seed * 10**9)
        for name, size in files.items()
    ]
    point = made.backup({"config": capture_of(sources)})
    (section,) = point.sections
    fetched = fetch(made.vault, section, made.identities, folder / "back", quiet)
    assert fetched.files == len(files) == section.files
    assert {path.name: path.read_bytes() for path in (folder / "back").iterdir()} == {
        source.path: source.content.read(0, source.size) for source in sources
    }
    assert verify_deep(made.vault, point, made.identities, quiet).problems == ()
    assert sealed_facts(made.vault, section, made.identities.secrets) == {"secret": "hush"}


def test_folders_links_modes_and_times_come_back(made: Bench, tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub").chmod(0o2770)
    (source / "0").chmod(0o640)
    os.utime(source / "0", ns=(10**18, 10**18 + 123))
    os.symlink("../0", source / "sub" / "inside")
    os.symlink("/etc/passwd", source / "outside")
    os.symlink("../../x", source / "sub" / "climbs")
    point = made.backup_tree(source)
    fetched = fetch(made.vault, point.sections[0], made.identities, tmp_path / "back", quiet)
    assert set(fetched.outside_links) == {"outside", "sub/climbs"}
    back = content_of(tmp_path / "back")
    assert back == {name: what for name, what in content_of(source).items() if name not in fetched.outside_links}
    assert (tmp_path / "back" / "sub").stat().st_mode & 0o7777 == 0o2770
    assert (tmp_path / "back" / "0").stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "back" / "0").stat().st_mtime_ns == 10**18 + 123


def test_an_equal_fingerprint_means_that_nothing_is_read(made: Bench, tmp_path: Path) -> None:
    first = made.backup_tree(filled(tmp_path / "source"), "same")

    def untouchable():
        raise AssertionError("it was read")
        yield

    again = made.backup({"config": replace(capture_of([], "same"), files=untouchable())})
    assert again.sections == first.sections
    assert again.sequence == 2
    with pytest.raises(AssertionError, match="it was read"):
        made.backup({"config": replace(capture_of([], "other"), files=untouchable())})


def test_what_is_stored_is_not_stored_again(made: Bench, tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    made.backup_tree(source)
    before = made.objects
    (source / "new").write_bytes(b"new")
    second = made.backup_tree(source)
    added = made.objects.keys() - before.keys()
    assert all(made.objects[name] == inode for name, inode in before.items())
    assert len(added) == 2  # the pack that holds the new file, and the index
    assert verify_deep(made.vault, second, made.identities, quiet).problems == ()


def test_a_lost_state_directory_costs_reading_not_storing(made: Bench, tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    made.backup_tree(source)
    before = made.objects
    for path in made.state.iterdir():
        if path.name != "node.key":
            path.unlink()
    point = made.backup_tree(source)
    assert len(made.objects.keys() - before.keys()) == 1  # the index is sealed anew
    assert verify_deep(made.vault, point, made.identities, quiet).problems == ()


def test_a_message_that_is_gone_is_left_out(made: Bench, tmp_path: Path) -> None:
    class Vanished:
        def read(self, offset: int, length: int) -> bytes:
            if offset == 0 and length < LARGE:
                raise Gone("small")
            if offset:
                raise Gone("large")
            return b"x" * length

    files = [
        SourceFile("small", size=10, content=Vanished()),
        SourceFile("large", size=3 * PIECE, content=Vanished()),
        SourceFile("stays", size=5, content=Held(b"stays")),
    ]
    point = made.backup({"config": capture_of(files)})
    fetched = fetch(made.vault, point.sections[0], made.identities, tmp_path / "back", quiet)
    assert fetched.files == point.sections[0].files == 1
    assert os.listdir(tmp_path / "back") == ["stays"]
    assert verify_deep(made.vault, point, made.identities, quiet).problems == ()


def test_two_backups_at_once_are_refused(made: Bench) -> None:
    words = (made.vault, made.key, made.state, made.clock, quiet)
    with begin_backup(*words), pytest.raises(errors.AnotherRun, match=str(os.getpid())), begin_backup(*words):
        raise AssertionError("two at once")


def test_two_hosts_of_one_name_do_not_overwrite_each_other(made: Bench, tmp_path: Path) -> None:
    other = NodeKey.load_or_create(tmp_path / "other-state", "primary")
    first = begin_backup(made.vault, made.key, made.state, made.clock, quiet)
    second = begin_backup(made.vault, other, tmp_path / "other-state", made.clock, quiet)
    with first as one, second as two:
        one.store("config", capture_of([]))
        two.store("config", capture_of([]))
        assert two.commit().sequence == 1
        assert one.commit().sequence == 2
    found = survey(made.vault, {})
    assert [point.sequence for point in found.points] == [1, 2]
    assert found.problems == ()


def test_a_clock_that_goes_back_does_not_disturb_the_order(made: Bench, tmp_path: Path) -> None:
    from kumodr.recover.choose import choose

    source = filled(tmp_path / "source")
    made.backup_tree(source)
    made.now -= timedelta(days=3)
    (source / "late").write_bytes(b"late")
    made.backup_tree(source)
    found = survey(made.vault, {})
    assert found.problems == ()
    assert [point.sequence for point in found.points] == [1, 2]
    assert found.points[1].taken < found.points[0].taken
    assert choose(found.points)[0].point.sequence == 2


@pytest.mark.parametrize("fail_at", range(12))
def test_a_store_that_fails_leaves_no_point_and_no_thread(made: Bench, tmp_path: Path, fail_at: int) -> None:
    source = filled(tmp_path / "source")
    real = made.vault.store.put_if_absent
    calls = 0

    def failing(name: str, pieces) -> bool:
        nonlocal calls
        calls += 1
        if calls > fail_at:
            raise errors.StoreUnavailable("the vault is gone")
        return real(name, pieces)

    class Failing:
        def __getattr__(self, name: str):
            return getattr(made.vault.store, name)

        put_if_absent = staticmethod(failing)

    broken = replace(made, vault=replace(made.vault, store=Failing()))
    threads = threading.active_count()
    try:
        broken.backup_tree(source)
        whole = True
    except errors.StoreUnavailable:
        whole = False
    assert threading.active_count() == threads
    found = survey(made.vault, {})
    assert len(found.points) == whole
    assert found.problems == ()
    before = made.objects
    point = made.backup_tree(source)
    assert all(made.objects[name] == inode for name, inode in before.items())
    assert verify_deep(made.vault, point, made.identities, quiet).problems == ()


def test_a_component_that_fails_while_it_is_read_is_not_in_the_point(made: Bench, tmp_path: Path) -> None:
    def breaking():
        yield from tree_files(filled(tmp_path / "source"))
        raise errors.SpoolDamaged("it broke")

    with begin_backup(made.vault, made.key, made.state, made.clock, quiet) as session:
        session.store("config", capture_of([]))
        with pytest.raises(errors.SpoolDamaged):
            session.store("spool", replace(capture_of([]), files=breaking()))
        session.fail("spool", "it broke")
        point = session.commit()
    assert [section.component for section in point.sections] == ["config"]
    assert survey(made.vault, {}).points[0].failures == {"spool": "it broke"}


PROGRAM = """
import sys, signal, os
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from datetime import datetime, UTC
from vaults import capture_of, tree_files, quiet
from kumodr.vault.backup import begin_backup
from kumodr.vault.keys import NodeKey
from kumodr.vault.open import open_vault
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
vault = open_vault(str(folder / "vault"))
calls = 0
real = vault.store.put_if_absent
def put(name, pieces):
    global calls
    done = real(name, pieces)
    calls += 1
    if calls == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
vault.store.put_if_absent = put
key = NodeKey.load_or_create(folder / "state", "primary")
with begin_backup(vault, key, folder / "state", lambda: datetime.now(UTC), quiet) as session:
    session.store("config", capture_of(tree_files(folder / "source")))
    session.commit()
"""


@pytest.mark.parametrize("kill_at", [2, 3, 4, 5, 6])
def test_a_killed_backup_is_no_point_and_is_not_done_again(made: Bench, tmp_path: Path, kill_at: int) -> None:
    source = filled(tmp_path / "source")
    words = [sys.executable, "-c", PROGRAM, str(tmp_path), str(kill_at), str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = survey(made.vault, {})
    assert found.problems == ()
    before = made.objects
    assert before
    point = made.backup_tree(source)
    assert point.sequence == len(found.points) + 1
    assert all(made.objects[name] == inode for name, inode in before.items())
    fetch(made.vault, point.sections[0], made.identities, tmp_path / "back", quiet)
    assert content_of(tmp_path / "back") == content_of(source)


def test_memory_is_bounded_whatever_the_size(made: Bench, tmp_path: Path) -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import vaults
made = vaults.bench(Path(sys.argv[1]) / "inner")
class Endless:
    def read(self, offset, length):
        return (offset.to_bytes(8, "big") * (length // 8 + 1))[:length]
from kumodr.source import SourceFile
from kumodr.vault.fetch import fetch
point = made.backup({"config": vaults.capture_of([SourceFile("large", size=400_000_000, content=Endless())])})
fetch(made.vault, point.sections[0], made.identities, Path(sys.argv[1]) / "back", vaults.quiet)
# Not ru_maxrss: that begins with what the process that started this one had.
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
"""
    (tmp_path / "inner").mkdir()
    words = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (tmp_path / "back" / "large").stat().st_size == 400_000_000
    assert int(done.stdout) < 300


def test_a_result_of_verify_is_kept_for_the_manifest_that_it_is_about(made: Bench, tmp_path: Path) -> None:
    point = made.backup_tree(filled(tmp_path / "source"))
    assert latest_verifications(made.vault, [point])[point.id] is None
    record_verification(made.vault, point, "shallow", verify_shallow(made.vault, point), made.clock, made.key)
    found = latest_verifications(made.vault, [point])[point.id]
    assert found is not None
    assert found["good"]
    assert latest_verifications(made.vault, [replace(point, sha256="other")])[point.id] is None


def test_a_shallow_look_does_not_hide_what_a_deep_one_found(made: Bench, tmp_path: Path) -> None:
    point = made.backup_tree(filled(tmp_path / "source"))

    def looked(level: str, *problems: str) -> bool:
        record_verification(made.vault, point, level, Verification(problems, {}), made.clock, made.key)
        found = latest_verifications(made.vault, [point])[point.id]
        assert found is not None
        return found["good"]

    assert not looked("deep", "an object is damaged")
    assert not looked("shallow")
    assert not looked("shallow")
    assert looked("deep")
    assert not looked("shallow", "an object is missing")
    assert looked("shallow")
    assert looked("restore")
