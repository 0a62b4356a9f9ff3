# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import tracemalloc
import zlib

import numpy as np
import pytest

from monai_anomalyclip.data.dicom.bounded import Allowance, BoundedStream, TooManyError, TooMuchError, inflate_beginning


def deflated(data: bytes) -> io.BytesIO:
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return io.BytesIO(deflater.compress(data) + deflater.flush())


def test_stream_reads_until_bytes_or_calls_are_used_up() -> None:
    allowance = Allowance(10, 100)
    first, second = (BoundedStream(io.BytesIO(b"abcdefghijkl"), allowance) for _ in range(2))
    assert first.read(4) == b"abcd"
    first.seek(0)
    assert first.read(2) == b"ab"
    assert second.read(4) == b"abcd"  # both use the same allowance
    with pytest.raises(TooMuchError):
        second.read(1)
    with pytest.raises(TooMuchError) as caught:
        allowance.check()
    assert not isinstance(caught.value, TooManyError)
    Allowance(0, 0).check()

    stream = BoundedStream(io.BytesIO(b"abc"), Allowance(100, 2))
    stream.read(1)
    stream.read(1)
    with pytest.raises(TooManyError):
        stream.read(1)
    with pytest.raises(TooMuchError):
        BoundedStream(io.BytesIO(b"abc"), Allowance(100, 2)).read()


def test_inflated_data_are_exact_as_far_as_they_are_kept() -> None:
    data = np.random.default_rng(0).integers(0, 7, 3 * 2**20, dtype=np.uint8).tobytes()
    assert inflate_beginning(deflated(data), len(data), len(data)).read() == data
    kept = inflate_beginning(deflated(data), 2**19, len(data)).read()
    assert 2**19 <= len(kept) <= 2**19 + 2**20
    assert data.startswith(kept)
    with pytest.raises(TooMuchError):
        inflate_beginning(deflated(data), 10, len(data) - 1)


def test_cut_off_data_give_their_beginning_and_damaged_ones_raise() -> None:
    data = bytes(range(256)) * 100
    whole = deflated(data).getvalue()
    assert data.startswith(inflate_beginning(io.BytesIO(whole[: len(whole) // 2]), 2**20, 2**20).read())
    with pytest.raises(zlib.error):
        inflate_beginning(io.BytesIO(b"\xff" * 100), 2**20, 2**20)


def test_memory_is_bounded_however_far_the_data_inflate() -> None:
    bomb = deflated(bytes(64 * 2**20))
    assert len(bomb.getvalue()) < 1_000_000
    tracemalloc.start()
    with pytest.raises(TooMuchError):
        inflate_beginning(bomb, 2**20, 48 * 2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
