# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
import sys

import jpeg_ls
import numpy as np
import openjpeg
import pytest
from PIL import Image
from pydicom.pixels.encoders import RLELosslessEncoder

from monai_anomalyclip.data.dicom.codestream import (
    EXTENDED_JPEG,
    Codestream,
    check_rle,
    decode_extended_jpeg,
    parse_jpeg,
    parse_jpeg2000,
)
from monai_anomalyclip.data.errors import UnreadableInputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (36, 50, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 4096, (40, 70), dtype=np.uint16)


def jpeg(picture: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_adobe(data: bytes, transform: int) -> bytes:
    return data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform]) + data[2:]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xc0" * 400}])
def test_jpeg(options: dict[str, object]) -> None:
    assert parse_jpeg(jpeg(COLOUR, **options)) == (36, 50, 3, 8, None)
    assert parse_jpeg(jpeg(COLOUR[..., 0], **options)) == (36, 50, 1, 8, None)
    assert parse_jpeg(with_adobe(jpeg(COLOUR), 1)) == (36, 50, 3, 8, 1)
    fill = jpeg(COLOUR)
    assert parse_jpeg(fill[:2] + b"\xff\x01\xff\xd0" + fill[2:])[:3] == (36, 50, 3)  # markers without a length
    assert parse_jpeg(fill[:2] + b"\xff\xff" + fill[2:])[:3] == (36, 50, 3)


def test_jpeg_ls() -> None:
    assert parse_jpeg(bytes(jpeg_ls.encode_array(GRAY))) == (40, 70, 1, 12, None)


def test_jpeg_2000() -> None:
    assert parse_jpeg2000(openjpeg.encode(GRAY, 12, 2)) == (40, 70, 1, 12, None)
    assert parse_jpeg2000(openjpeg.encode(COLOUR, 8, 1, use_mct=False)) == (36, 50, 3, 8, None)
    boxed = io.BytesIO()
    Image.fromarray(COLOUR).save(boxed, "JPEG2000")
    assert boxed.getvalue()[4:8] == b"jP  "
    assert parse_jpeg2000(boxed.getvalue())[:3] == (36, 50, 3)


def test_extended_jpeg_without_gdcm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdcm", None)
    with pytest.raises(UnreadableInputError, match=r"JPEG Extended .*2\.4\.51\): install python-gdcm"):
        decode_extended_jpeg(jpeg(COLOUR[..., 0]), Codestream(36, 50, 1, 8), EXTENDED_JPEG[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"BM" + bytes(100),
        b"\xff\xd8\xff\xd9" + bytes(10),
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50,
        jpeg(COLOUR)[:60],
    ],
)
def test_what_is_no_jpeg(data: bytes) -> None:
    with pytest.raises(ValueError, match="JPEG"):
        parse_jpeg(data)


def test_a_second_frame_header_does_not_hide() -> None:
    data = jpeg(COLOUR)
    start = data.index(b"\xff\xc0")
    (length,) = struct.unpack_from(">H", data, start + 2)
    frame = data[start : start + 2 + length]
    huge = frame[:5] + struct.pack(">HH", 12000, 12000) + frame[9:]
    with pytest.raises(ValueError, match="damaged"):
        parse_jpeg(data[:start] + frame + huge + data[start + 2 + length :])


@pytest.mark.parametrize("data", [b"", bytes(200), openjpeg.encode(GRAY, 12, 2)[:30]])
def test_what_is_no_jpeg_2000(data: bytes) -> None:
    with pytest.raises(ValueError, match="JPEG 2000 header"):
        parse_jpeg2000(data)


def test_jpeg_2000_with_two_truths_or_too_many_tiles() -> None:
    boxed = io.BytesIO()
    Image.fromarray(COLOUR).save(boxed, "JPEG2000")
    data = bytearray(boxed.getvalue())
    box = data.index(b"ihdr") + 4
    data[box : box + 8] = struct.pack(">2I", 12000, 12000)
    with pytest.raises(ValueError, match="contradict"):
        parse_jpeg2000(bytes(data))
    bare = bytearray(openjpeg.encode(GRAY, 12, 2))
    bare[24:32] = struct.pack(">2I", 1, 1)  # XTsiz, YTsiz
    assert parse_jpeg2000(bytes(bare))[:2] == (40, 70)
    bare[8:16] = struct.pack(">2I", 70, 70)
    with pytest.raises(ValueError, match="tiles"):
        parse_jpeg2000(bytes(bare))
    bare[24:28] = bytes(4)
    with pytest.raises(ValueError, match="damaged"):
        parse_jpeg2000(bytes(bare))


def test_rle() -> None:
    options = {"rows": 40, "columns": 70, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 12}
    options |= {"photometric_interpretation": "MONOCHROME2", "pixel_representation": 0, "number_of_frames": 1}
    data = RLELosslessEncoder.encode(GRAY, encoding_plugin="pydicom", **options)
    check_rle(data, 2, 40 * 70)
    with pytest.raises(ValueError, match="damaged"):
        check_rle(data, 1, 40 * 70)
    with pytest.raises(ValueError, match="cut off"):
        check_rle(data[:60], 2, 40 * 70)
    with pytest.raises(ValueError, match="more than the frame holds"):
        check_rle(data, 2, 1000)
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 10_000  # each pair stands for 128 bytes
    with pytest.raises(ValueError, match="more than the frame holds"):
        check_rle(bomb, 1, 64)
    backwards = struct.pack("<16I", 2, 500, 64, *[0] * 13) + bytes(600)
    with pytest.raises(ValueError, match="damaged"):
        check_rle(backwards, 2, 64)
