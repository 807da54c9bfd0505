"""A segment of the stream: everything comes back as it was put, and nothing else is taken for one."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vaults import Bench, bench

from kumodr import errors
from kumodr.vault import segment
from kumodr.vault.keys import NodeKey
from kumodr.vault.segment import Content, Draft, LogPiece

TAKEN = datetime(2026, 11, 24, 10, 0, 0, 123456, UTC)
CHANGES = st.dictionaries(st.binary(max_size=20), st.none() | st.binary(max_size=60), max_size=8)
PIECES = st.builds(
    LogPiece,
    path=st.text(min_size=1, max_size=12),
    offset=st.integers(0, (1 << 63) - 1),
    data=st.binary(max_size=50),
    mode=st.integers(0, 0o777),
    mtime_ns=st.integers(-(1 << 60), 1 << 62),
)
CONTENTS = st.builds(Content, CHANGES, CHANGES, st.lists(PIECES, max_size=3).map(tuple))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench(tmp_path_factory.mktemp("segments"))


def sealed(made: Bench, draft: Draft, content: Content, key: NodeKey | None = None) -> tuple[str, bytes]:
    found = segment.sealed(draft, content, key or made.key, made.vault.id, made.vault.public_keys())
    data = b"".join(found.pieces)
    assert len(data) == found.size
    return found.name, data


@settings(max_examples=60, deadline=None)
@given(CONTENTS, st.integers(1, 10**9), st.integers(0, 400), st.booleans())
def test_what_is_sealed_comes_back(made: Bench, content: Content, first: int, more: int, partial: bool) -> None:
    roll = "e" * 64 if more else None
    draft = Draft(7, first, first + more, TAKEN, "a" * 64, partial, {"lag": 0.5}, roll)
    name, data = sealed(made, draft, content)
    head = segment.head_of(data, name, made.vault.id)
    assert (head.node, head.epoch, head.first, head.last) == ("primary", 7, first, first + more)
    assert (head.taken, head.previous, head.partial, head.facts) == (TAKEN, "a" * 64, partial, {"lag": 0.5})
    assert head.signed_by == made.key.public
    assert head.hash == roll or not more
    assert segment.head_of(data[: segment.body_at(data)], name, made.vault.id) == head
    assert segment.content_of(data, head, made.identities.secrets) == content


def test_what_is_larger_than_an_object_of_a_base_comes_back(made: Bench) -> None:
    large = bytes(20 << 20)
    name, data = sealed(made, Draft(1, 1, 1, TAKEN, None), Content({}, {b"k" * 16: large}))
    head = segment.head_of(data, name, made.vault.id)
    assert segment.content_of(data, head, made.identities.secrets).data == {b"k" * 16: large}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_byte_is_seen(made: Bench, data: st.DataObject) -> None:
    name, whole = sealed(made, Draft(1, 3, 3, TAKEN, "b" * 64), Content({b"m" * 16: b"value"}, {b"m" * 16: None}))
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((errors.ManifestForged, errors.ObjectDamaged)):
        head = segment.head_of(bytes(changed), name, made.vault.id)
        segment.content_of(bytes(changed), head, made.identities.secrets)
        # What neither signature nor hash covers: how the signature's line is written, and how the key is spelled, which
        # then is none that counts.
        genuine = segment.head_of(whole, name, made.vault.id)
        assert replace(head, signed_by=genuine.signed_by) == genuine
        raise errors.ObjectDamaged("only the spelling of the signature's line")


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -100])
def test_a_cut_segment_is_none(made: Bench, cut: int) -> None:
    name, data = sealed(made, Draft(1, 3, 3, TAKEN, "b" * 64), Content({b"m" * 16: b"value"}))
    with pytest.raises((errors.ManifestForged, errors.ObjectDamaged)):
        segment.content_of(data[:cut], segment.head_of(data[:cut], name, made.vault.id), made.identities.secrets)


def test_bytes_between_head_and_content_are_seen(made: Bench) -> None:
    name, data = sealed(made, Draft(1, 3, 3, TAKEN, "b" * 64), Content({b"m" * 16: b"value"}))
    at = segment.body_at(data)
    more = data[:at] + b"more" + data[at:]
    with pytest.raises(errors.ObjectDamaged, match=name):
        segment.content_of(more, segment.head_of(more, name, made.vault.id), made.identities.secrets)


def test_a_segment_under_another_name_or_of_another_vault_does_not_count(made: Bench) -> None:
    name, data = sealed(made, Draft(1, 3, 3, TAKEN, "b" * 64), Content())
    for other in ("stream/primary/00000001/0000000004.seg", "stream/other/00000001/0000000003.seg"):
        with pytest.raises(errors.ManifestForged, match="something else"):
            segment.head_of(data, other, made.vault.id)
    with pytest.raises(errors.ManifestForged):
        segment.head_of(data, name, "another vault")


def resigned(made: Bench, change: Callable[[dict[str, object]], object]) -> tuple[str, bytes]:
    """A head as the node itself would sign it, but no kumodr writes it."""
    name, data = sealed(made, Draft(1, 3, 3, TAKEN, "b" * 64), Content({b"m" * 16: b"value"}))
    head, _, _ = data.partition(b"\n")
    document = json.loads(head)
    change(document)
    line = json.dumps(document).encode() + b"\n"
    signature = {"key": made.key.public, "ed25519": b64encode(made.key.sign(line)).decode()}
    return name, line + json.dumps(signature).encode() + b"\n" + data[segment.body_at(data) :]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first", 0), ("first", True), ("first", 3.0), ("first", "3"), ("last", 2), ("epoch", -1), ("plain", 1 << 31),
        ("plain", -1), ("size", None), ("taken", "2026-11-24T10:00:00"), ("taken", 5), ("previous", 7),
        ("partial", "false"), ("facts", 3), ("node", "../x"), ("vault", 1),
    ],
)  # fmt: skip
def test_a_head_that_no_kumodr_writes_is_forged(made: Bench, field: str, value: object) -> None:
    name, data = resigned(made, lambda document: document.update({field: value}))
    with pytest.raises(errors.ManifestForged, match=name):
        segment.head_of(data, name, made.vault.id)


def test_a_newer_format_is_said(made: Bench) -> None:
    name, data = resigned(made, lambda document: document.update(format=2))
    with pytest.raises(errors.VaultFormatUnknown):
        segment.head_of(data, name, made.vault.id)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"\n\n", b"{}\n{}\n", b"[" * 50_000 + b"\n{}\n", b"x" * (1 << 18), b"1\n2\n"]
)
def test_what_is_no_head_is_forged(made: Bench, text: bytes) -> None:
    with pytest.raises(errors.ManifestForged):
        segment.head_of(text, "stream/primary/00000001/0000000003.seg", made.vault.id)


def test_content_that_lies_is_damaged(made: Bench) -> None:
    """Signed by the node's own key, as a mail host that was taken over could."""
    plain = b"".join(segment.encoded(Content({b"m" * 16: b"value"}, {}, (LogPiece("a", 0, b"xy", 0o600, 5),))))
    assert segment.decoded(plain).unpacked().logs[0].data == b"xy"
    line, _, rest = plain.partition(b"\n")
    parts = json.loads(line)
    logs = next(index for index, (name, _) in enumerate(parts) if name == "logs.list")
    at = sum(length for _, length in parts[:logs])
    size = parts[logs][1]

    def listed(*values: object) -> bytes:
        text = json.dumps([list(values)]).encode()
        changed = [*parts[:logs], ["logs.list", len(text)], *parts[logs + 1 :]]
        return json.dumps(changed).encode() + b"\n" + rest[:at] + text + rest[at + size :]

    def measured(name: str, change: int) -> bytes:
        lengths = [[each, length + (change if each == name else 0)] for each, length in parts]
        return json.dumps(lengths).encode() + b"\n" + rest

    lies = [
        b"", b"[]\n", b"{}\n" + rest, b"[" * 100_000 + b"\n" + rest,
        plain + b"more", plain[:-1], measured("meta.keys", 1), measured("meta.values", -1),
        json.dumps([["meta.sizes", -8], *parts[1:]]).encode() + b"\n" + rest,
        json.dumps([["meta.sizes", 8], ["meta.keys", 19], ["meta.values", 2], *parts[3:]]).encode() + b"\n" + rest,
        json.dumps([*parts, ["meta.sizes", 0]]).encode() + b"\n" + rest,
        listed("a", -1, 2, 0o600, 5), listed("a", 0, 3, 0o600, 5), listed("a", 0, 1, 0o600, 5),
        listed(5, 0, 2, 0o600, 5), listed("a", 0.5, 2, 0o600, 5), listed("a", 1 << 63, 2, 0o600, 5),
        listed("a", 0, 2, 0o4755, 5), listed("a", 0, 2, 0o600, 1 << 64), listed("a", 0, 2),
    ]  # fmt: skip
    for number, lie in enumerate(lies):
        body = segment.seal(lie, made.vault.public_keys())
        sealed_bytes = b"".join(body.pieces)
        digest = segment.hashlib.sha256(sealed_bytes).hexdigest()
        name, whole = sealed(made, Draft(1, 3, 3, TAKEN, None), Content())
        head = replace(
            segment.head_of(whole, name, made.vault.id),
            plain_size=len(lie), sealed_size=len(sealed_bytes), sealed_sha256=digest,
        )  # fmt: skip
        with pytest.raises(errors.ObjectDamaged, match=name):
            segment.content_of(b"head\nsignature\n" + sealed_bytes, head, made.identities.secrets)
            pytest.fail(f"lie {number} was believed")


def test_the_wrong_key_is_said(made: Bench, tmp_path: Path) -> None:
    name, data = sealed(made, Draft(1, 3, 3, TAKEN, None), Content())
    with pytest.raises(errors.WrongKey, match=name):
        segment.content_of(data, segment.head_of(data, name, made.vault.id), bench(tmp_path).identities.secrets)
