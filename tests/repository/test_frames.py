"""Frames: what is sealed opens to the same bytes, and nothing else opens."""

from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd.repository.frames import (
    BlobPlace,
    FrameDamaged,
    FrameKeys,
    FrameKind,
    FrameRow,
    Method,
    open_frame,
    sealed_frame,
)
from opsd.repository.keys import Keyring
from opsd.repository.seal import keyed_hash, seal
from opsd.repository.signing import SigningKey

OWNER = SigningKey(ed25519=b"\1" * 32, mldsa65=b"\2" * 32).public()
RING = Keyring(repository=b"r" * 32, owner_public=OWNER, id_key=b"i" * 32, index_key=b"x" * 32)
KEYS = FrameKeys.of(RING, 1, b"s" * 32)


def sealed(blobs: list[bytes], keys: FrameKeys = KEYS) -> tuple[FrameRow, bytes]:
    """A frame of these blobs, and its row."""
    places, offset = [], 0
    for blob in blobs:
        places.append(BlobPlace(keyed_hash(keys.blob_key, blob), offset, len(blob)))
        offset += len(blob)
    plain = b"".join(blobs)
    method, stored = sealed_frame(keys, FrameKind.BLOBS, b"".join(place.id for place in places), memoryview(plain))
    row = FrameRow(b"b" * 16, 0, FrameKind.BLOBS, method, keys.domain, 0, 0, len(stored), len(plain), tuple(places))
    return row, bytes(stored)


@given(st.lists(st.binary(max_size=500), min_size=1, max_size=20))
def test_a_frame_opens_to_its_blobs(blobs: list[bytes]) -> None:
    row, stored = sealed(blobs)
    assert open_frame(KEYS, row, memoryview(stored)) == b"".join(blobs)


def test_what_compresses_is_compressed_and_noise_is_not() -> None:
    row, stored = sealed([b"again and again " * 1000])
    assert row.method == Method.ZSTD
    assert len(stored) < 1000
    noise, _ = sealed([bytes(keyed_hash(b"k" * 32, bytes([number]))[0] for number in range(200))])
    assert noise.method == Method.RAW


def test_the_same_content_is_sealed_to_the_same_identity_under_any_session_key() -> None:
    _, one = sealed([b"content"])
    _, other = sealed([b"content"], FrameKeys.of(RING, 1, b"t" * 32))
    assert one[:32] == other[:32]
    assert one[32:] != other[32:]


@settings(max_examples=60)
@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    row, stored = sealed([b"some text " * 30, b"more"])
    place = data.draw(st.integers(0, len(stored) - 1))
    bad = bytearray(stored)
    bad[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameDamaged):
        open_frame(KEYS, row, memoryview(bad))


@pytest.mark.parametrize(
    "change", [{"plain_length": 3}, {"plain_length": 1 << 40}, {"method": 0}, {"kind": 2}, {"stored_length": 7}]
)
def test_a_row_that_says_otherwise_is_refused(change: dict[str, Any]) -> None:
    row, stored = sealed([b"some text " * 30])
    with pytest.raises(FrameDamaged):
        open_frame(KEYS, row._replace(**change), memoryview(stored))


def test_a_cut_frame_is_refused() -> None:
    row, stored = sealed([b"some text " * 30])
    with pytest.raises(FrameDamaged):
        open_frame(KEYS, row, memoryview(stored)[:-1])


def test_blobs_under_other_ids_are_refused() -> None:
    """Who can write could store other bytes under a valid id; whoever reads finds out."""
    blobs = [b"right"]
    wrong = BlobPlace(keyed_hash(KEYS.blob_key, b"wrong"), 0, 5)
    plain = blobs[0]
    method, stored = sealed_frame(KEYS, FrameKind.BLOBS, wrong.id, memoryview(plain))
    row = FrameRow(b"b" * 16, 0, 1, method, 1, 0, 0, len(stored), 5, (wrong,))
    with pytest.raises(FrameDamaged, match="does not match its id"):
        open_frame(KEYS, row, memoryview(bytes(stored)))


def compressed(body: bytes, length: int, blob: bytes) -> tuple[FrameRow, bytes]:
    """A frame as somebody with the keys could write it: any compressed body, said to hold `length` bytes, under a blob's id."""
    place = BlobPlace(keyed_hash(KEYS.blob_key, blob), 0, len(blob))
    frame_id = KEYS.frame_id(place.id)
    context = KEYS.context(FrameKind.BLOBS, Method.ZSTD, length)
    stored = frame_id + seal(KEYS.encryption_key(frame_id), context, body)
    return FrameRow(b"b" * 16, 0, 1, Method.ZSTD, 1, 0, 0, len(stored), length, (place,)), stored


BLOB = b"some text " * 30
PACKED = zstandard.ZstdCompressor().compress(BLOB)
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(BLOB)


@pytest.mark.parametrize("body", [PACKED, UNSIZED])
def test_a_compressed_body_opens_whether_it_tells_its_length_or_not(body: bytes) -> None:
    row, stored = compressed(body, len(BLOB), BLOB)
    assert open_frame(KEYS, row, memoryview(stored)) == BLOB


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (PACKED, len(BLOB) - 1),
        (PACKED, len(BLOB) + 1),
        (UNSIZED, len(BLOB) - 1),
        (UNSIZED, len(BLOB) + 1),
        (PACKED + PACKED, len(BLOB)),
        (PACKED + b"x", len(BLOB)),
        (PACKED[:-1], len(BLOB)),
        (b"", len(BLOB)),
        (b"no zstd frame at all", len(BLOB)),
    ],
)
def test_a_compressed_body_of_any_other_length_is_refused(body: bytes, length: int) -> None:
    row, stored = compressed(body, length, BLOB)
    with pytest.raises(FrameDamaged):
        open_frame(KEYS, row, memoryview(stored))
