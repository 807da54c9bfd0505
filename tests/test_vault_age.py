"""age, written and read here, against pyrage and the `age` program."""

import os
import subprocess
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from kumodr.vault import age, bech32

SECRETS = [X25519PrivateKey.generate() for _ in range(3)]
SIZES = st.one_of(
    st.integers(0, 300),
    st.builds(lambda chunks, step: max(0, chunks * age.CHUNK + step), st.integers(0, 3), st.integers(-2, 2)),
)


def sealed_for(data: bytes, secrets: list[X25519PrivateKey]) -> bytes:
    return b"".join(age.encrypt(data, [secret.public_key() for secret in secrets]))


@settings(max_examples=60, deadline=None)
@given(size=SIZES, reader=st.integers(0, 2))
def test_pyrage_reads_what_is_written_here_and_the_reverse(size: int, reader: int) -> None:
    data = os.urandom(size)
    identity = pyrage.x25519.Identity.from_str(age.text_of_secret(SECRETS[reader]))
    assert pyrage.decrypt(sealed_for(data, SECRETS), [identity]) == data
    recipients = [pyrage.x25519.Recipient.from_str(age.recipient_of(secret)) for secret in SECRETS]
    assert age.decrypt(pyrage.encrypt(data, recipients), [SECRETS[reader]]) == data


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_the_age_program_reads_what_is_written_here_and_the_reverse(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    key = tmp_path / "key"
    key.write_text(age.text_of_secret(SECRETS[1]) + "\n")
    opened = subprocess.run(["age", "-d", "-i", key], input=sealed_for(data, SECRETS), capture_output=True, check=True)
    assert opened.stdout == data
    words = ["age", *(word for secret in SECRETS[:2] for word in ("-r", age.recipient_of(secret)))]
    assert age.decrypt(subprocess.run(words, input=data, capture_output=True, check=True).stdout, SECRETS[1:2]) == data


@settings(max_examples=150, deadline=None)
@given(size=SIZES, change=st.sampled_from(["flip", "cut", "extend", "drop chunk"]), where=st.integers(0, 1 << 30))
def test_whatever_is_changed_is_noticed(size: int, change: str, where: int) -> None:
    sealed = bytearray(sealed_for(os.urandom(size), SECRETS[:1]))
    if change == "flip":
        sealed[where % len(sealed)] ^= 1 << where % 8
    elif change == "cut":
        del sealed[where % len(sealed) :]
    elif change == "extend":
        sealed += b"\0" * (1 + where % 70_000)
    else:
        start = where % len(sealed)
        if start + age.CHUNK + age.TAG > len(sealed):
            start = max(0, len(sealed) - 20)
        del sealed[start : start + age.CHUNK + age.TAG]
    with pytest.raises((age.Damaged, age.NotForThisKey)):
        age.decrypt(bytes(sealed), SECRETS[:1])


def test_another_key_is_told_apart_from_damage() -> None:
    with pytest.raises(age.NotForThisKey):
        age.decrypt(sealed_for(b"x", SECRETS[:1]), SECRETS[1:])


@given(st.binary(max_size=64))
def test_bech32_comes_back(data: bytes) -> None:
    assert bech32.decode(bech32.encode("age", data)) == ("age", data)
    assert bech32.decode(bech32.encode("age", data).upper()) == ("age", data)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 1000), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_a_mistyped_key_is_refused(data: bytes, place: int, letter: str) -> None:
    text = bech32.encode("age", data)
    at = 4 + place % (len(text) - 4)
    if text[at] != letter:
        with pytest.raises(ValueError, match="checksum"):
            bech32.decode(text[:at] + letter + text[at + 1 :])
