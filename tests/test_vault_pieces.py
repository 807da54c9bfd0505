"""Sealed content comes back the same, whether it lies in raw blocks or was compressed, and by whom."""

import os
import random
import subprocess

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from kumodr import errors
from kumodr.vault import age
from kumodr.vault.fetch import Pieces
from kumodr.vault.seal import LARGEST_PLAIN, raw_blocks, seal, stored_frame, unseal, unseal_pieces

SECRET = X25519PrivateKey.generate()
BLOCK = 128 << 10


def sealed(frame: bytes) -> bytes:
    return b"".join(age.encrypt(frame, [SECRET.public_key()]))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, LARGEST_PLAIN])
@pytest.mark.parametrize("content", ["random", "zeros"])
def test_what_was_sealed_comes_back(size: int, content: str) -> None:
    plain = os.urandom(size) if content == "random" else bytes(size)
    found = b"".join(seal(plain, [SECRET.public_key()]).pieces)
    assert unseal(found, [SECRET], size, "x") == plain
    assert b"".join(unseal_pieces(found, [SECRET], size, "x")) == plain


def test_raw_blocks_are_not_copied() -> None:
    frame = stored_frame(os.urandom(3 * BLOCK))
    blocks = raw_blocks(frame, 3 * BLOCK)
    assert blocks is not None
    assert all(block.obj is frame for block in blocks)


def test_zstd_reads_what_lies_in_raw_blocks() -> None:
    plain = os.urandom(5 * BLOCK + 7)
    words = ["zstd", "--decompress", "--stdout", "--quiet"]
    assert subprocess.run(words, input=stored_frame(plain), capture_output=True, check=True).stdout == plain


@given(st.integers(0, 4 * BLOCK), st.integers(-1, 19), st.random_module())
@settings(max_examples=30, deadline=None)
def test_frames_of_other_writers_come_back(size: int, level: int, _seeded: object) -> None:
    plain = random.randbytes(size // 2) + bytes(size - size // 2)
    frame = zstandard.ZstdCompressor(level=level).compress(plain)
    assert unseal(sealed(frame), [SECRET], size, "x") == plain


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_frame_of_raw_blocks_is_refused_or_has_its_promised_size(data: st.DataObject) -> None:
    size = 2 * BLOCK + 9
    frame = bytearray(stored_frame(bytes(range(256)) * (size // 256) + bytes(size % 256)))
    heads = [*range(16), *range(13 + BLOCK, 16 + BLOCK), *range(16 + 2 * BLOCK, 19 + 2 * BLOCK)]
    frame[data.draw(st.sampled_from(heads))] ^= data.draw(st.integers(1, 255))
    cut = frame[: len(frame) - data.draw(st.sampled_from([0, 1, 9, BLOCK]))]
    try:
        assert len(unseal(sealed(bytes(cut)), [SECRET], size, "x")) == size
    except errors.ObjectDamaged:
        return


@given(st.lists(st.binary(max_size=9), max_size=8), st.integers(0, 80), st.integers(0, 80))
def test_a_part_of_pieces_is_that_part_of_all(pieces: list[bytes], start: int, size: int) -> None:
    found = Pieces([memoryview(piece) for piece in pieces]).part(start, size)
    assert b"".join(found) == b"".join(pieces)[start : start + size]
