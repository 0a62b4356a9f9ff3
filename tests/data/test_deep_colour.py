# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import openjpeg
import pytest
import tifffile

from monai_anomalyclip.data import read_frame, read_mask
from monai_anomalyclip.data.deep_colour import scaled, white_of
from monai_anomalyclip.data.errors import UnreadableInputError

COLOURS = np.random.default_rng(0).integers(0, 65536, (20, 30, 4)).astype(np.uint16)


def png(path: Path, samples: np.ndarray, *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG of 16 bits per sample, written by its specification."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, count = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


TIFFS: dict[str, dict[str, Any]] = {
    "little": {"byteorder": "<"},
    "big": {"byteorder": ">"},
    "zlib": {"compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 16)},
    "planes": {"planarconfig": "separate"},
    "planes zlib": {"planarconfig": "separate", "compression": "zlib"},
    "tagged gray": {"photometric": "minisblack", "planarconfig": "contig"},
}


@pytest.mark.parametrize(("shift", "white"), [(0, 65535), (4, 4095), (8, 255)])
@pytest.mark.parametrize("kind", ["png", *TIFFS])
def test_colours_have_the_white_of_their_bit_range(kind: str, shift: int, white: int, tmp_path: Path) -> None:
    """As gray has it: 12-bit values in 16-bit files are not nearly black."""
    colours = COLOURS[..., :3] >> shift
    if kind == "png":
        path = png(tmp_path / "c.png", colours)
    else:
        path = tmp_path / "c.tif"
        options = {"photometric": "rgb", **TIFFS[kind]}
        stored = np.moveaxis(colours, -1, 0) if options.get("planarconfig") == "separate" else colours
        tifffile.imwrite(path, stored, metadata=None, **options)
    np.testing.assert_array_equal(read_frame(path), np.round(colours / white * 255))


def test_pages_have_one_white(tmp_path: Path) -> None:
    dark, bright = COLOURS[..., :3] >> 8, COLOURS[..., :3] >> 4
    tifffile.imwrite(tmp_path / "c.tif", np.stack([dark, bright]), photometric="rgb", metadata=None)
    for page, colours in enumerate((dark, bright)):
        np.testing.assert_array_equal(read_frame(tmp_path / "c.tif", page), np.round(colours / 4095 * 255))


@pytest.mark.parametrize("kind", ["png", "tiff", "gray"])
def test_transparency_is_no_brightness(kind: str, tmp_path: Path) -> None:
    count = 1 if kind == "gray" else 3
    colours, alpha = COLOURS[..., :count] >> 4, COLOURS[..., 3:]
    samples = np.concatenate([colours, alpha], axis=2)
    path = tmp_path / "a.tif"
    if kind == "tiff":
        tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    else:
        path = png(tmp_path / "a.png", samples)
    expected = np.broadcast_to(colours / 4095 * 255 * (alpha / 65535), (20, 30, 3))
    assert np.abs(read_frame(path) - expected).max() < 2  # the samples are rounded to 8 bits before


def test_transparent_colour_is_black(tmp_path: Path) -> None:
    colours = COLOURS[..., :3].copy()
    colours[:5] = (65000, 64000, 63000)
    path = png(tmp_path / "t.png", colours, (b"tRNS", struct.pack(">HHH", 65000, 64000, 63000)))
    seen = read_frame(path)
    assert seen[:5].max() == 0
    np.testing.assert_array_equal(seen[5:], np.round(colours[5:] / 257))


def test_small_colours_of_a_mask_are_anomaly(tmp_path: Path) -> None:
    labels = np.zeros((6, 7, 3), np.uint16)
    labels[2, 3] = (0, 1, 0)
    np.testing.assert_array_equal(read_mask(png(tmp_path / "m.png", labels)), labels.any(axis=2))


@pytest.mark.parametrize(("largest", "white"), [(0, 255), (255, 255), (256, 4095), (4095, 4095), (4096, 65535)])
def test_white_and_rounding(largest: int, white: int) -> None:
    assert white_of(largest) == white
    values = np.arange(largest + 1)
    np.testing.assert_array_equal(scaled(values, largest), np.round(values / white * 255))


def jpeg_2000(path: Path, samples: np.ndarray, bits: int) -> Path:
    """A lossless JPEG 2000 picture that declares so many bits per sample; .j2k has no colours' names."""
    photometric = {1: 2, 3: 1}[samples.shape[2]]  # OpenJPEG's: gray, RGB
    packed = np.ascontiguousarray(samples.squeeze())
    data = openjpeg.encode(
        packed, bits_stored=bits, photometric_interpretation=photometric, use_mct=False,
        codec_format=0 if path.suffix == ".j2k" else 1,
    )  # fmt: skip
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
@pytest.mark.parametrize(("bits", "largest", "white"), [
    (16, 65535, 65535), (16, 3000, 4095), (12, 3000, 4095), (12, 200, 4095), (10, 1000, 1023), (14, 9000, 16383),
])  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_jpeg_2000_of_more_than_8_bits(
    count: int, bits: int, largest: int, white: int, suffix: str, tmp_path: Path
) -> None:
    samples = (np.tile(COLOURS, (3, 3, 1))[..., :count].astype(int) % (largest + 1)).astype(np.uint16)
    samples[0, 0] = largest
    shown = read_frame(jpeg_2000(tmp_path / f"a{suffix}", samples, bits))
    expected = np.rint(samples * (255.0 / white))
    assert np.abs(shown - expected).max() == 0


def test_jpeg_2000_with_signs_is_refused(tmp_path: Path) -> None:
    path = jpeg_2000(tmp_path / "a.j2k", np.tile(COLOURS, (3, 3, 1))[..., :3] // 16, 12)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\x51") + 40  # SIZ: depth of the first component, and whether it has signs
    for component in range(3):
        assert data[at + 3 * component] == 11
        data[at + 3 * component] |= 0x80
    path.write_bytes(data)
    with pytest.raises(UnreadableInputError, match=r"JPEG 2000 of 12 bits .*signed"):
        read_frame(path)
