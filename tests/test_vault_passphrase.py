"""Identity files under a passphrase: those of `age -p` and of pyrage open, and what is wrong is said."""

import os
import pty
import select
import shutil
import subprocess
import sys
from base64 import encodebytes
from pathlib import Path

import pyrage
import pytest

from kumodr import errors
from kumodr.vault.age import recipient_of
from kumodr.vault.keys import generate_identity, load_identities
from kumodr.vault.passphrase import opened

SECRET = "correct horse battery"


def protected_by_age(plain: Path, target: Path, *options: str) -> None:
    """Run `age -p`, which asks its terminal twice."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvp("age", ["age", "--passphrase", *options, "--output", str(target), str(plain)])
    asked = b""
    for _ in range(2):
        while b"passphrase" not in asked.lower():
            assert select.select([terminal], [], [], 20)[0]
            asked += os.read(terminal, 1024)
        asked = b""
        os.write(terminal, SECRET.encode() + b"\n")
        while b"\n" not in asked:
            asked += os.read(terminal, 1024)
        asked = asked.partition(b"\n")[2]
    while True:
        try:
            if not os.read(terminal, 1024):
                break
        except OSError:
            break
    assert os.waitpid(process, 0)[1] == 0
    os.close(terminal)


@pytest.fixture
def identity(tmp_path: Path) -> tuple[str, Path]:
    made = generate_identity()
    path = tmp_path / "plain.txt"
    path.write_text(f"# kumodr node primary {'0' * 64}\n{made.secret}\n")
    return made.recipient, path


def given(tmp_path: Path, passphrase: str) -> dict[str, str]:
    (tmp_path / "passphrase").write_text(passphrase + "\n")
    return {"KUMODR_IDENTITY_PASSPHRASE_FILE": str(tmp_path / "passphrase")}


@pytest.mark.parametrize("options", [(), ("--armor",)])
def test_a_file_of_age_opens(identity: tuple[str, Path], tmp_path: Path, options: tuple[str, ...]) -> None:
    if shutil.which("age") is None:
        pytest.skip("age is not installed")
    protected_by_age(identity[1], tmp_path / "protected", *options)
    found = load_identities(str(tmp_path / "protected"), given(tmp_path, SECRET))
    assert recipient_of(found.secrets[0]) == identity[0]
    assert found.pins == {"primary": frozenset(["0" * 64])}
    with pytest.raises(errors.WrongKey, match="passphrase is wrong"):
        load_identities(str(tmp_path / "protected"), given(tmp_path, "other"))


def test_a_file_of_pyrage_opens_whatever_its_size() -> None:
    for size in (0, 1, 65535, 65536, 65537):
        assert opened(pyrage.passphrase.encrypt(b"x" * size, SECRET), SECRET) == b"x" * size


def test_what_is_changed_or_too_hard_is_refused(identity: tuple[str, Path]) -> None:
    sealed = pyrage.passphrase.encrypt(identity[1].read_bytes(), SECRET)
    first, rest = sealed.split(b"\n", 2)[1], sealed.split(b"\n", 2)[2]
    hard = b"age-encryption.org/v1\n" + first.rpartition(b" ")[0] + b" 40\n" + rest
    with pytest.raises(ValueError, match="work factor of 40"):
        opened(hard, SECRET)
    with pytest.raises(ValueError, match="cut or changed"):
        opened(sealed[:-1] + bytes([sealed[-1] ^ 1]), SECRET)
    armored = b"-----BEGIN AGE ENCRYPTED FILE-----\n" + encodebytes(sealed) + b"-----END AGE ENCRYPTED FILE-----\n"
    assert opened(armored, SECRET) == identity[1].read_bytes()
    with pytest.raises(ValueError, match="ends early"):
        opened(armored[:-20], SECRET)
    other = pyrage.encrypt(b"x", [pyrage.x25519.Identity.generate().to_public()])
    with pytest.raises(ValueError, match="not protected by a passphrase"):
        opened(other, SECRET)


def test_without_a_terminal_the_way_to_give_it_is_said(identity: tuple[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "protected"
    path.write_bytes(pyrage.passphrase.encrypt(identity[1].read_bytes(), SECRET))
    program = "import sys; from kumodr.vault.keys import load_identities; load_identities(sys.argv[1], {})"
    done = subprocess.run(
        [sys.executable, "-c", program, path], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert "needs a passphrase; name a file" in done.stderr
    with pytest.raises(errors.KeyMissing, match="KUMODR_IDENTITY_PASSPHRASE_FILE"):
        load_identities(str(path), {"KUMODR_IDENTITY_PASSPHRASE_FILE": str(tmp_path / "none")})
