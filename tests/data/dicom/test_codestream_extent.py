# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct

import pytest

from monai_anomalyclip.data.dicom.codestream import find_extent

NATIVE = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 20)
OPEN = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
TABLE = struct.pack("<HH2sHL", 0x7FE0, 0x0001, b"OV", 0, 8) + bytes(8)
END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


def item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def holds(data: bytes, size: float = 20) -> bool:
    return find_extent(io.BytesIO(b"before" + data), 6, True).holds(size)


@pytest.mark.parametrize("missing", [1, 2, 19, 20, 21, 25])
def test_native_pixels(missing: int) -> None:
    whole = NATIVE + bytes(20)
    assert holds(whole)
    assert holds(whole + bytes(8))
    assert not holds(whole[:-missing])
    assert not holds((TABLE + whole)[:-missing])


def test_a_byte_of_padding_is_no_pixel() -> None:
    assert holds((NATIVE + bytes(20))[:-1], 19)


def test_implicit_and_big_endian() -> None:
    implicit = struct.pack("<HHL", 0x7FE0, 0x0010, 20)
    assert holds(implicit + bytes(20))
    assert not holds(implicit + bytes(19))
    big = struct.pack(">HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 20)
    assert find_extent(io.BytesIO(big + bytes(20)), 0, False).holds(20)
    assert not find_extent(io.BytesIO(big + bytes(19)), 0, False).holds(20)


def test_compressed_pixels_end_with_their_last_fragment_or_its_delimiter() -> None:
    whole = OPEN + item(b"") + item(b"\xff\xd8" * 10) + item(b"\xff\xd9" * 4)
    assert holds(whole + END)
    assert holds(whole)
    for cut in range(len(OPEN) + 1, len(whole)):
        boundary = cut in (len(OPEN) + 8, len(OPEN) + 36)  # nothing tells that a fragment follows
        assert holds(whole[:cut]) == boundary, cut
    for missing in range(1, 8):
        assert not holds((whole + END)[:-missing])
