"""`kumodr spool salvage`: whatever was broken, the result has every message that the damaged spool or the copy has."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from rocksdict import BlockBasedOptions, Options, Rdict
from spool_samples import key, meta, write_spool
from test_spool_fixtures import SPOOLS

from kumodr.cli.main import main
from kumodr.clock import system_clock
from kumodr.lab.faults import FAULTS
from kumodr.spool.diagnose import Diagnosis, diagnose
from kumodr.spool.localdisk import path_of
from kumodr.spool.reader import open_spool
from kumodr.spool.salvage.entry import NOTHING
from kumodr.spool.salvage.salvage import Salvaged, salvage

Half = dict[bytes, bytes]
ROCKS_FAULTS = (
    "corrupt-sst", "drop-sst", "truncate-sst", "drop-wal", "truncate-wal", "flip-bit", "drop-current",
)  # fmt: skip
PAIRS = Random(5).sample(sorted(combinations(ROCKS_FAULTS, 2)), 8)


@dataclass(frozen=True)
class World:
    """A spool as it was when it broke, and a copy from before."""

    damaged: Path
    copy: Path
    now: Mapping[str, Half]
    ever: Mapping[str, Mapping[bytes, set[bytes]]]
    before: Mapping[str, Half]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A spool of many tables and a log: messages came, went and were put off, before and after the copy."""
    root = tmp_path_factory.mktemp("salvage")
    chance = Random(11)
    databases = {name: _database(root / f"open-{name}") for name in ("meta", "data")}
    now: dict[str, Half] = {"meta": {}, "data": {}}
    before: dict[str, Half] = {}
    ever: dict[str, dict[bytes, set[bytes]]] = {"meta": {}, "data": {}}
    for number in range(600):
        if number == 400:
            before = {name: dict(half) for name, half in now.items()}
        each = key(timedelta(seconds=10_000 - number * 7), number % 9)
        now["meta"][each], now["data"][each] = meta(recipient=f"r{number}@b.test"), chance.randbytes(2000)
        for name, half in now.items():
            databases[name].put(each, half[each])
            ever[name][each] = {half[each]}
        if number % 3 == 0:
            gone = chance.choice(sorted(now["meta"]))
            for name in ("data", "meta"):
                databases[name].delete(gone)
                del now[name][gone]
        elif number % 7 == 0:
            late = chance.choice(sorted(now["meta"]))
            now["meta"][late] = meta(recipient="r@b.test", meta={"tries": number})
            databases["meta"].put(late, now["meta"][late])
            ever["meta"][late].add(now["meta"][late])
        if number % 90 == 0:
            databases["meta"].flush()
    for name, database in databases.items():
        shutil.copytree(
            root / f"open-{name}", root / "spool" / name, ignore=shutil.ignore_patterns("LOG*", "LOCK", "*.json")
        )
        database.close()
    write_spool(root / "restored" / "spool", "rocksdb", before["meta"], before["data"])
    return World(root / "spool", root / "restored" / "spool", now, ever, before)


def _database(path: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.set_write_buffer_size(64 << 10)
    options.set_level_zero_file_num_compaction_trigger(4)
    tables = BlockBasedOptions()
    tables.set_format_version(5)
    options.set_block_based_table_factory(tables)
    return Rdict(str(path), options)


def broken(world: World, folder: Path, faults: tuple[str, ...], seed: int) -> World:
    """Return a copy of the world in which faults of the lab have met the spool."""
    site = folder / "site"
    shutil.copytree(world.damaged, site / "spool")
    for fault in faults:
        FAULTS[fault](SimpleNamespace(root=site, spool=site / "spool"), Random(f"{seed} {fault}"))  # pyright: ignore
    return World(site / "spool", world.copy, world.now, world.ever, world.before)


def salvaged(world: World, target: Path, *, copy: bool = True) -> tuple[Salvaged, dict[str, Half]]:
    """Salvage; return what it says, and what is in the result. The damaged spool must stay as it was."""
    there = _state(world.damaged)
    found = salvage(
        *halves(world.damaged), world.copy if copy else None, target, clock=system_clock, progress=lambda *_: None
    )
    assert _state(world.damaged) == there
    with open_spool(target / "spool" / "meta", target / "spool" / "data") as spool:
        metas = {bytes.fromhex(each): value for each, value in spool.entries()}
        bodies = {bytes.fromhex(each): value for each, value in spool.bodies()}
    return found, {"meta": metas, "data": bodies}


def halves(spool: Path) -> tuple[Path, Path]:
    return spool / "meta", spool / "data"


def _state(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (status.st_size, status.st_mtime_ns, status.st_ino) for path, status in found.items()}


def check(world: World, found: Salvaged, result: Mapping[str, Half], *, cut: bool = False) -> None:
    """Nothing invented, nothing lost that either had, and the count is exact."""
    for name, half in result.items():
        for each, value in half.items():
            assert value in world.ever[name][each], each.hex()
        # What the copy has, and was not finished, is in the result, whatever was broken.
        assert world.now[name].keys() & world.before[name].keys() <= half.keys()
        assert _readable(world.damaged / name) & world.now[name].keys() <= half.keys()
    whole = result["meta"].keys() & result["data"].keys()
    assert found.messages == len(whole) == found.from_spool + found.from_copy + found.from_both
    assert set(found.without_body) == {each.hex() for each in result["meta"].keys() - whole}
    assert set(found.without_metadata) == {each.hex() for each in result["data"].keys() - whole}
    if not cut and not any(each.after != NOTHING for unknown in found.unknown.values() for each in unknown):
        assert result == world.now  # a log that was cut may look like one that ends there


def _readable(half: Path) -> set[bytes]:
    """Return the ids that RocksDB reads as KumoMTA opens it, on a copy."""
    if not half.exists():
        return set()
    scratch = half.parent.parent / f"as-kumod-{half.name}"
    shutil.copytree(half, scratch)
    options = Options(raw_mode=True)
    options.set_paranoid_checks(False)
    options.create_if_missing(False)
    try:
        database = Rdict(str(scratch), options)
    except Exception:
        return set()
    found = set(database.keys())
    database.close()
    return found


def test_a_whole_spool_is_the_same_afterwards(made: World, tmp_path: Path) -> None:
    found, result = salvaged(made, tmp_path / "to")
    assert result == made.now
    assert (found.messages, found.from_spool) == (len(made.now["meta"]),) * 2
    assert not any(found.unknown.values())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fault", ROCKS_FAULTS)
def test_each_fault_alone(made: World, tmp_path: Path, fault: str, seed: int) -> None:
    world = broken(made, tmp_path, (fault,), seed)
    found, result = salvaged(world, tmp_path / "to")
    check(world, found, result, cut="wal" in fault)
    if fault == "drop-current":
        assert result == made.now


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_faults_in_pairs(made: World, tmp_path: Path, pair: tuple[str, str]) -> None:
    world = broken(made, tmp_path, pair, 3)
    check(world, *salvaged(world, tmp_path / "to"), cut=any("wal" in fault for fault in pair))


@pytest.mark.parametrize("lost", ["meta", "data"])
def test_a_half_that_was_removed_comes_from_the_copy(made: World, tmp_path: Path, lost: str) -> None:
    world = broken(made, tmp_path, (), 0)
    shutil.rmtree(world.damaged / lost)
    found, result = salvaged(world, tmp_path / "to")
    check(world, found, result)
    assert found.from_both > 100


def test_a_log_that_lost_its_end_is_filled_from_the_copy(made: World, tmp_path: Path) -> None:
    world = broken(made, tmp_path, (), 0)
    for half in ("meta", "data"):
        (log,) = (world.damaged / half).glob("*.log")
        log.write_bytes(log.read_bytes()[: len(log.read_bytes()) // 4])
    younger = World(world.damaged, tmp_path / "younger" / "spool", world.now, world.ever, world.now)
    write_spool(younger.copy, "rocksdb", world.now["meta"], world.now["data"])
    found, result = salvaged(younger, tmp_path / "to")
    check(younger, found, result, cut=True)
    assert any("its end is lost" in each.text for each in found.unknown["data"])


def test_one_flipped_byte_costs_one_block(made: World, tmp_path: Path) -> None:
    world = broken(made, tmp_path, ("flip-bit",), 1)
    found, _ = salvaged(world, tmp_path / "to", copy=False)
    assert found.messages > 0.9 * len(made.now["meta"])
    assert found.from_spool == found.messages


def test_localdisk_files_are_saved_one_by_one(tmp_path: Path) -> None:
    now = {key(timedelta(minutes=number), number): meta(recipient=f"r{number}@b.test") for number in range(20)}
    bodies = {each: each * 50 for each in now}
    write_spool(tmp_path / "site" / "spool", "localdisk", now, bodies)
    older = dict(list(now.items())[:15])
    write_spool(tmp_path / "restored" / "spool", "localdisk", older, {each: bodies[each] for each in older})
    world = World(
        tmp_path / "site" / "spool", tmp_path / "restored" / "spool", {"meta": now, "data": bodies}, {},
        {"meta": older, "data": bodies},
    )  # fmt: skip
    ids = list(now)
    (world.damaged / "meta" / path_of(ids[0])).write_bytes(b"{not json")
    (world.damaged / "meta" / path_of(ids[16])).write_bytes(b"{neither")
    (world.damaged / "data" / path_of(ids[1])).write_bytes(bodies[ids[1]][:100])
    (world.damaged / "data" / path_of(ids[2])).unlink()
    found, result = salvaged(world, tmp_path / "to")
    assert result["meta"][ids[0]] == now[ids[0]]
    assert result["meta"][ids[16]] == b"{neither"  # nothing is destroyed: `spool vet` takes it out
    assert result["data"][ids[1]] == bodies[ids[1]]
    # A body that is gone while the spool is readable is one that KumoMTA removed: the message was finished.
    assert found.without_body == (ids[2].hex(),)
    assert found.messages == 19
    assert found.from_both == 2


def diagnosed(world: World) -> Diagnosis:
    there = _state(world.damaged)
    found = diagnose(*halves(world.damaged), "auto", system_clock, lambda *_: None)
    assert _state(world.damaged) == there
    return found


def test_a_sound_spool_is_called_sound_whatever_its_log_says_of_the_past(made: World, tmp_path: Path) -> None:
    world = broken(made, tmp_path, (), 0)
    (world.damaged / "meta" / "LOG").write_text("2026/11/24 [ERROR] Corruption: once upon a time\n")
    found = diagnosed(world)
    assert (found.verdict, found.readable, found.evidence) == ("sound", len(made.now["meta"]), ())
    assert [each.witness for each in found.told] == ["meta/LOG"]


@pytest.mark.parametrize("fault", [each for each in ROCKS_FAULTS if each != "truncate-wal"])
def test_every_fault_is_diagnosed_with_its_file(made: World, tmp_path: Path, fault: str) -> None:
    site = tmp_path / "site"
    shutil.copytree(made.damaged, site / "spool")
    said = FAULTS[fault](SimpleNamespace(root=site, spool=site / "spool"), Random(9))  # pyright: ignore
    found = diagnosed(World(site / "spool", made.copy, made.now, made.ever, made.before))
    assert found.verdict == "damaged"
    file = re.search(r"(\d+\.(?:sst|log))|CURRENT", said)
    assert file is not None
    text = " ".join(each.text for each in found.evidence)
    assert file[0] in text or "write-ahead log is missing" in text or "writes before number" in text


def test_the_verb_says_what_it_found_and_what_to_do_next(
    made: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = broken(made, tmp_path, ("drop-sst",), 2)
    words = ["spool", "salvage", str(world.damaged), "--copy", str(world.copy)]
    assert main([*words, "--json"]) == 3
    looked: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert looked["target"] is None
    assert main([*words, "--to", str(tmp_path / "to")]) == 3
    text = capsys.readouterr().out
    assert "is missing" in text
    assert f"{looked['messages']:,} whole messages" in text
    assert main(["spool", "vet", "--spool", str(tmp_path / "to" / "spool"), "--max-age", "300d", "--apply"]) in (0, 3)
    assert main(["spool", "diagnose", "--spool", str(world.damaged)]) == 3
    assert "remove nothing" in capsys.readouterr().out
    assert main(["spool", "salvage", str(world.damaged), "--to", str(tmp_path / "to")]) == 5
    assert main(["spool", "salvage", str(world.damaged), "--to", str(world.damaged / "meta" / "x")]) == 5
    assert main(["spool", "salvage", str(tmp_path / "nowhere")]) == 4


@pytest.mark.parametrize("name", SPOOLS)
def test_a_capture_of_a_real_server_comes_out_whole(
    unpacked: Any, fixtures_directory: Path, tmp_path: Path, name: str
) -> None:
    expected = json.loads((fixtures_directory / f"{name}.json").read_text())
    spool = unpacked(name) / "spool"
    found = salvage(*halves(spool), None, tmp_path / "to", clock=system_clock, progress=lambda *_: None)
    assert not any(found.unknown.values())
    with open_spool(tmp_path / "to" / "spool" / "meta", tmp_path / "to" / "spool" / "data") as result:
        assert sorted(result.ids()) == sorted(expected["meta_ids"])
        assert {each: sha256(body).hexdigest() for each, body in result.bodies()} == expected["data_sha256"]
