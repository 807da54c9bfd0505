"""Messages as files: exact bytes, or a form that can be turned back exactly."""

import mailbox
import re
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spool_samples import key, meta, write_spool

from kumodr import errors
from kumodr.spool.export import export
from kumodr.spool.reader import Spool, open_spool

BODIES = {
    key(number=1): b"Subject: a\r\n\r\nFrom here on\r\n>From there\r\n\r\n",
    key(number=2): b"no line feed at the end \xff\x00",
    key(number=3): b"",
    key(number=4): b"From the first byte\n\n\nFrom \n>>>From x\n\n",
}


@pytest.fixture(params=["rocksdb", "localdisk"])
def spool(request: pytest.FixtureRequest, tmp_path: Path):
    write_spool(tmp_path / "spool", request.param, dict.fromkeys(BODIES, meta(sender="a b\n@x.test")), BODIES)
    with open_spool(tmp_path / "spool" / "meta", tmp_path / "spool" / "data") as held:
        yield held


def bodies_of_mbox(data: bytes) -> list[bytes]:
    """What any reader of mboxrd does: split at lines that begin with `From `, take one `>` and one line feed away."""
    parts = re.split(rb"^From .*\n", data, flags=re.MULTILINE)[1:]
    return [re.sub(rb"^>(>*From )", rb"\1", part.removesuffix(b"\n"), flags=re.MULTILINE) for part in parts]


@pytest.mark.parametrize(("form", "pattern"), [("eml", "*.eml"), ("maildir", "new/*")])
def test_files_have_the_exact_bytes_and_are_private(spool: Spool, tmp_path: Path, form: str, pattern: str) -> None:
    target = tmp_path / "out"
    done = export(spool, spool.body_ids(), target, form)
    assert (done.written, done.without_body) == (4, ())
    files = list(target.glob(pattern))
    assert sorted(path.read_bytes() for path in files) == sorted(BODIES.values())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert target.stat().st_mode & 0o777 == 0o700
    assert all(any(each.hex() in path.name for path in files) for each in BODIES)
    if form == "maildir":
        assert len(mailbox.Maildir(target, create=False)) == 4


def test_an_mbox_can_be_turned_back_exactly(spool: Spool, tmp_path: Path) -> None:
    export(spool, spool.body_ids(), tmp_path / "out", "mbox")
    (path,) = (tmp_path / "out").iterdir()
    data = path.read_bytes()
    assert bodies_of_mbox(data) == [BODIES[each] for each in sorted(BODIES)]
    assert len(mailbox.mbox(path)) == 4
    assert re.findall(rb"^From (\S+) ", data, re.MULTILINE)[0] == b"a_b_@x.test"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from([b"From ", b">", b"\n", b"\r\n", b"x", b"\xff", b"From"])).map(b"".join)))
def test_any_bodies_come_back_out_of_an_mbox(tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes]) -> None:
    class Memory:
        """A spool of these bodies, for what `export` asks of one."""

        def body(self, identifier: str) -> bytes:
            return bodies[int(identifier, 16)]

        def metadata(self, identifier: str) -> None:
            raise errors.MessageMissing(identifier)

    target = tmp_path_factory.mktemp("mbox")
    export(Memory(), (f"{number:032x}" for number in range(len(bodies))), target, "mbox")
    assert bodies_of_mbox((target / "messages.mbox").read_bytes()) == bodies


def test_nothing_is_written_over_and_what_has_no_body_is_named(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    for place in (tmp_path / "full", tmp_path / "full" / "x"):
        with pytest.raises(errors.TargetNotEmpty):
            export(spool, spool.ids(), place, "eml")
    absent = key(number=9).hex()
    done = export(spool, iter([absent, key(number=1).hex()]), tmp_path / "out", "eml")
    assert (done.written, done.without_body) == (1, (absent,))


def test_a_real_message_keeps_its_date(unpacked, tmp_path: Path) -> None:
    spool = unpacked("rocksdb-killed") / "spool"
    with open_spool(spool / "meta", spool / "data") as held:
        export(held, held.ids(), tmp_path / "out", "mbox")
    box = mailbox.mbox(tmp_path / "out" / "messages.mbox")
    assert len(box) == 135
    first = box[0]
    received = parsedate_to_datetime(str(first["Received"]).rpartition(";")[2].strip())
    assert f"{received:%a %b %d %H:%M:%S %Y}" in first.get_from()
