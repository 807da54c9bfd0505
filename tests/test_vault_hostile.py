"""A vault that was damaged, or written to by someone else: refused by name, and nothing left behind."""

import json
import os
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from disks import mounted
from vaults import Bench, bench, capture_of, quiet

from kumodr import errors
from kumodr.source import Held, SourceFile
from kumodr.vault import age, manifest
from kumodr.vault.facts import Point, Section, StoredObject
from kumodr.vault.fetch import fetch, link_stays_inside
from kumodr.vault.index import line
from kumodr.vault.keys import NodeKey, generate_identity, parse_identities
from kumodr.vault.nodes import register
from kumodr.vault.open import open_vault
from kumodr.vault.points import survey
from kumodr.vault.seal import checksum_of, seal
from kumodr.vault.verify import verify_deep, verify_shallow


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    return bench(tmp_path)


def stored(made: Bench, count: int = 1) -> list[Point]:
    chance = random.Random(3)
    return [
        made.backup(
            {
                "config": capture_of(
                    [
                        SourceFile("small", size=7, content=Held(b"content")),
                        SourceFile("large", size=2_000_000, content=Held(chance.randbytes(2_000_000))),
                    ]
                )
            }
        )
        for _ in range(count)
    ]


def path_of(made: Bench, name: str) -> Path:
    return made.folder / "vault" / name


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


DAMAGES: dict[str, Callable[[Bench, Section], None]] = {
    "truncated": lambda made, section: os.truncate(path_of(made, section.objects[0].name), 200),
    "flipped": lambda made, section: changed(path_of(made, section.objects[0].name), flip),
    "missing": lambda made, section: path_of(made, section.objects[0].name).unlink(),
    "swapped": lambda made, section: swapped(made, section.objects[0].name, section.objects[1].name),
    "index flipped": lambda made, section: changed(path_of(made, section.index[0].name), flip),
    "index missing": lambda made, section: path_of(made, section.index[0].name).unlink(),
    "index swapped": lambda made, section: swapped(made, section.index[0].name, section.objects[0].name),
    "grown": lambda made, section: changed(path_of(made, section.objects[0].name), lambda data: data.extend(b"x")),
    "huge": lambda made, section: os.truncate(path_of(made, section.objects[0].name), 1 << 33),
}


def changed(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def swapped(made: Bench, one: str, two: str) -> None:
    first, second = path_of(made, one).read_bytes(), path_of(made, two).read_bytes()
    path_of(made, one).write_bytes(second)
    path_of(made, two).write_bytes(first)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_nothing_is_left(made: Bench, damage: str, tmp_path: Path) -> None:
    (point,) = stored(made)
    DAMAGES[damage](made, point.sections[0])
    (tmp_path / "to").mkdir()
    with pytest.raises((errors.ObjectDamaged, errors.ObjectMissing)) as caught:
        fetch(made.vault, point.sections[0], made.identities, tmp_path / "to" / "config", quiet)
    assert "objects/" in str(caught.value)
    assert tree(tmp_path / "to") == []
    assert verify_deep(made.vault, point, made.identities, quiet).problems
    if damage in ("truncated", "missing", "index missing", "grown", "huge"):
        assert verify_shallow(made.vault, point).problems


def test_the_wrong_key_is_said_and_nothing_is_left(made: Bench, tmp_path: Path) -> None:
    (point,) = stored(made)
    wrong = parse_identities(generate_identity().secret, "test")
    (tmp_path / "to").mkdir()
    with pytest.raises(errors.WrongKey):
        fetch(made.vault, point.sections[0], wrong, tmp_path / "to" / "config", quiet)
    with pytest.raises(errors.WrongKey):
        verify_deep(made.vault, point, wrong, quiet)
    assert tree(tmp_path / "to") == []


@pytest.mark.parametrize("text", ["", "no key\n", "AGE-SECRET-KEY-1QQQQ\n", "age1abc\n", "# only a comment\n"])
def test_a_file_that_holds_no_identity_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(errors.WrongKey) as caught:
        parse_identities(text, "file")
    assert "QQQQ" not in str(caught.value)


def resigned(made: Bench, text: bytes, key: NodeKey) -> bytes:
    body = text.rstrip(b"\n").rpartition(b"\n")[0] + b"\n"
    return body + json.dumps({"key": key.public, "ed25519": b64encode(key.sign(body)).decode()}).encode() + b"\n"


def manifest_path(made: Bench, sequence: int) -> Path:
    return path_of(made, manifest.name_of("primary", sequence))


def test_an_edited_manifest_is_forged_and_the_others_stay(made: Bench) -> None:
    stored(made, 3)
    path = manifest_path(made, 2)
    path.write_bytes(path.read_bytes().replace(b'"files": 2', b'"files": 3'))
    found = survey(made.vault, {})
    assert [point.sequence for point in found.points] == [1, 3]
    assert [type(problem) for problem in found.problems] == [errors.ManifestForged, errors.ChainBroken]


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"{}\n{}\n", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}\n{"key": "00", "ed25519": ""}']
)
def test_a_manifest_that_is_none_is_forged(made: Bench, text: bytes) -> None:
    stored(made, 2)
    manifest_path(made, 1).write_bytes(text)
    found = survey(made.vault, {})
    assert [point.sequence for point in found.points] == [2]
    assert isinstance(found.problems[0], errors.ManifestForged)


def test_reordered_manifests_are_forged(made: Bench) -> None:
    stored(made, 3)
    one, two = manifest_path(made, 1).read_bytes(), manifest_path(made, 2).read_bytes()
    manifest_path(made, 1).write_bytes(two)
    manifest_path(made, 2).write_bytes(one)
    found = survey(made.vault, {})
    assert [point.sequence for point in found.points] == [3]
    assert [type(problem) for problem in found.problems] == [*[errors.ManifestForged] * 2, errors.ChainBroken]


def test_a_missing_manifest_breaks_the_chain(made: Bench) -> None:
    stored(made, 3)
    manifest_path(made, 2).unlink()
    (problem,) = survey(made.vault, {}).problems
    assert isinstance(problem, errors.ChainBroken)
    assert "between primary-1 and primary-3" in str(problem)


def test_a_manifest_rewritten_with_the_nodes_own_key_breaks_the_chain(made: Bench) -> None:
    stored(made, 3)
    path = manifest_path(made, 2)
    path.write_bytes(resigned(made, path.read_bytes().replace(b'"files": 2', b'"files": 1'), made.key))
    (problem,) = survey(made.vault, {}).problems
    assert "primary-3 does not follow the primary-2" in str(problem)


def test_a_foreign_key_counts_only_where_nobody_vouches_for_another(made: Bench, tmp_path: Path) -> None:
    (point,) = stored(made)
    stranger = NodeKey.load_or_create(tmp_path / "stranger", "primary")
    path = manifest_path(made, 2)
    forged = replace(point, id="primary-2", sequence=2, previous=point.sha256)
    path.write_bytes(manifest.render(forged, made.vault.id, stranger))
    assert [each.sequence for each in survey(made.vault, {}).points] == [1]
    register(made.vault, stranger)
    assert [each.sequence for each in survey(made.vault, {}).points] == [1, 2]
    pinned = survey(made.vault, {"primary": frozenset([made.key.public])})
    assert [each.sequence for each in pinned.points] == [1]
    assert f"# kumodr node primary {stranger.public}" in str(pinned.problems[0])


def test_a_point_of_another_vault_does_not_count(made: Bench, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (point,) = stored(made)
    manifest_path(made, 1).write_bytes(manifest.render(point, "another-vault", made.key))
    assert "belongs to another vault" in str(survey(made.vault, {}).problems[0])


def test_an_unknown_format_is_said(made: Bench) -> None:
    stored(made)
    path = manifest_path(made, 1)
    path.write_bytes(resigned(made, path.read_bytes().replace(b'"format": 1', b'"format": 9'), made.key))
    (problem,) = survey(made.vault, {}).problems
    assert isinstance(problem, errors.VaultFormatUnknown)
    marker = path_of(made, "kumodr-vault.json")
    marker.write_text(marker.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(errors.VaultFormatUnknown, match="format 2"):
        open_vault(str(made.folder / "vault"))
    marker.write_text("no json")
    with pytest.raises(errors.VaultFormatUnknown):
        open_vault(str(made.folder / "vault"))


def hostile_section(made: Bench, entries: list[list[object]], plain: bytes, *, promised: int | None = None) -> Section:
    """Return a section that anybody with the public key could have written, with an index of the given lines."""
    keys = made.vault.public_keys()

    def put(data: bytes, sealed=None) -> StoredObject:
        pieces = sealed or seal(data, keys).pieces
        whole = b"".join(pieces)
        import hashlib

        digest = hashlib.sha256(whole).hexdigest()
        name = f"objects/{digest[:2]}/{digest[:40]}"
        made.vault.store.put_if_absent(name, [whole])
        return StoredObject(name, len(whole), checksum_of(whole), digest)

    import blake3

    content = put(plain)
    size = len(plain) if promised is None else promised
    lines = [line(["o", content.name, size, blake3.blake3(plain).hexdigest()])]
    lines += [line(["f", *entry]) for entry in entries]
    index = put(b"".join([*lines, line(["s", {}])]))
    return Section("config", (replace(content, sha256=None),), (index,), len(entries), 0, {})


def entry(path: str, *, kind: str = "file", size: int = 4, offset: int = 0, target: str = "") -> list[object]:
    return [path, kind, 0o4777, 0, 0, 0, size, offset, target]


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../escaped")],
        [entry("a/../../escaped")],
        [entry("/tmp/escaped")],
        [entry("")],
        [entry("a//b")],
        [entry("a\0b")],
        [entry("./a")],
        [entry("x" * 300)],
        [entry("a"), entry("a")],
        [entry("a"), entry("a/b")],
        [entry("a/b"), entry("a")],
        [entry("link", kind="symlink", target="/tmp"), entry("link/escaped")],
        [entry("d", kind="directory"), entry("d", kind="symlink", target="/tmp")],
    ],
)
def test_a_path_that_leaves_the_folder_is_unsafe_before_anything_is_written(
    made: Bench, entries: list[list[object]], tmp_path: Path
) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises(errors.ManifestUnsafe):
        fetch(made.vault, hostile_section(made, entries, b"evil"), made.identities, tmp_path / "to" / "config", quiet)
    assert tree(tmp_path / "to") == []
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    "entries",
    [
        [entry("a", offset=-1)],
        [entry("a", size=-1)],
        [entry("a", size=10**15)],
        [entry("a", size="4")],  # type: ignore[arg-type] # that is the attack
        [entry("a", kind="device")],
        [entry("a")[:5]],
        [entry("a", offset=10**9)],
        [["only"]],
    ],
)
def test_an_index_that_lies_is_damaged(made: Bench, entries: list[list[object]], tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises((errors.ObjectDamaged, errors.ManifestUnsafe)):
        fetch(made.vault, hostile_section(made, entries, b"evil"), made.identities, tmp_path / "to" / "config", quiet)
    assert tree(tmp_path / "to") == []


def test_modes_do_not_make_programs_of_root(made: Bench, tmp_path: Path) -> None:
    fetch(made.vault, hostile_section(made, [entry("a")], b"evil"), made.identities, tmp_path / "config", quiet)
    assert (tmp_path / "config" / "a").stat().st_mode & 0o7000 == 0


def test_an_object_that_unpacks_to_more_than_promised_is_refused(made: Bench, tmp_path: Path) -> None:
    section = hostile_section(made, [entry("a")], bytes(4_000_000), promised=4)
    with pytest.raises(errors.ObjectDamaged):
        fetch(made.vault, section, made.identities, tmp_path / "config", quiet)
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    sealed = b"".join(age.encrypt(bomb, made.vault.public_keys()))
    path_of(made, section.objects[0].name).write_bytes(sealed)
    hostile = replace(section.objects[0], size=len(sealed), crc32c=checksum_of(sealed))
    with pytest.raises(errors.ObjectDamaged, match="another size"):
        fetch(made.vault, replace(section, objects=(hostile,)), made.identities, tmp_path / "config", quiet)
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        ("a", "b", True), ("a/b", "../c", True), ("a", "../c", False), ("a/b", "../../c", False), ("a", "/etc", False),
        ("a/b", "./../c/../d", True), ("a", "b/../../c", False), ("a", "", False),
    ],
)  # fmt: skip
def test_where_a_link_leads(path: str, target: str, inside: bool) -> None:
    assert link_stays_inside(path, target) is inside


def test_a_target_that_is_there_is_refused(made: Bench, tmp_path: Path) -> None:
    (point,) = stored(made)
    (tmp_path / "target").mkdir()
    with pytest.raises(errors.TargetNotEmpty):
        fetch(made.vault, point.sections[0], made.identities, tmp_path / "target", quiet)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    with mounted(tmp_path / "disk", "1m") as folder:
        yield folder


def test_a_full_disk_leaves_nothing(made: Bench, small_disk: Path) -> None:
    (point,) = stored(made)
    with pytest.raises(errors.DiskFull):
        fetch(made.vault, point.sections[0], made.identities, small_disk / "config", quiet)
    assert tree(small_disk) == []


def test_no_secret_and_no_name_of_a_file_is_in_the_clear(made: Bench) -> None:
    made.backup({"config": capture_of([SourceFile("path/of/secret.key", size=4, content=Held(b"hush"))])})
    clear = b"".join(path.read_bytes() for path in (made.folder / "vault").rglob("*") if path.is_file())
    for word in (b"secret.key", b"hush", b"SECRET-KEY"):
        assert word not in clear
    assert all(path.stat().st_mode & 0o077 == 0 for path in tree(made.folder / "vault"))
    assert (made.state / "node.key").stat().st_mode & 0o777 == 0o600
