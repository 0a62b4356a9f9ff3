# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLossless

from monai_anomalyclip.data import UnreadableInputError, checksums, read_frame
from monai_anomalyclip.data.checksums import check_jpeg, check_lossless_jpeg, check_png, decode_jpeg

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


def test_png_with_a_changed_pixel_is_damaged_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    content = path.read_bytes()
    start, end = content.index(b"IDAT") + 4, content.index(b"IEND") - 8
    for place in (*range(start, end, 97), end - 5, end - 1):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises(UnreadableInputError, match="damaged"):
            read_frame(path)


def test_what_is_beside_the_picture_may_have_a_wrong_checksum(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", dpi=(100, 100))
    content = bytearray(buffer.getvalue())
    content[content.index(b"pHYs") + 13] ^= 1
    check_png(io.BytesIO(content))
    with pytest.raises(UnreadableInputError, match="truncated"):
        check_png(io.BytesIO(content[:-20]))
    check_png(io.BytesIO(b"no PNG"))


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5, "predictor": True}])
def test_deflated_tiff_with_a_changed_pixel_is_damaged(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", compression="zlib", metadata=None, **options)
    np.testing.assert_array_equal(read_frame(path), PIXELS)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))  # type: ignore[union-attr]
    for offset, count in parts[:: max(1, len(parts) // 4)]:
        for place in range(offset + 2, offset + count, max(1, count // 9)):
            changed = bytearray(content)
            changed[place] ^= 4
            path.write_bytes(changed)
            with pytest.raises(UnreadableInputError, match="damaged"):
                read_frame(path)


def png(colour: int, bits: int, size: tuple[int, int], interlaced: bool, rows: list[bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(12, 9), (3, 2), (1, 1), (17, 5)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), [(0, 1), (0, 8), (0, 16), (2, 8), (4, 8), (6, 16)])
def test_png_whose_pixels_end_early(
    colour: int, bits: int, interlaced: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    """In each row order of the specification; all checksums are right, as a program leaves it that gave up."""
    width, height = size
    bands = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    grids = [np.ones((height, width))[y::down, x::right] for y, x, down, right in starts]
    lines = [line for grid in (grids if interlaced else [np.ones((height, width))]) for line in grid if len(line)]
    rows = [b"\xaa" * -(-len(line) * bands * bits // 8) for line in lines]
    path = tmp_path / "a.png"
    path.write_bytes(png(colour, bits, size, interlaced, rows))
    assert read_frame(path).shape == (height, width, 3)
    path.write_bytes(png(colour, bits, size, interlaced, rows[:-1]))
    with pytest.raises(UnreadableInputError, match="pixels end before the picture does"):
        read_frame(path)


SMOOTH = np.clip(np.cumsum(np.random.default_rng(1).normal(0, 3, (90, 120, 3)), axis=1) * 4 + 128, 0, 255)


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_rows": 2}], ids=str
)
@pytest.mark.parametrize("kept", [0.5, 0.7, 0.95])
@pytest.mark.parametrize("gray", [False, True])
def test_jpeg_whose_pixels_end_early(gray: bool, kept: float, options: dict[str, Any], tmp_path: Path) -> None:
    """Cut within its scan and closed again by the marker of its end, as recording programs and repairs leave it."""
    picture = Image.fromarray(SMOOTH.astype(np.uint8)).convert("L" if gray else "RGB")
    path = tmp_path / "a.jpg"
    picture.save(path, quality=90, **options)
    content = path.read_bytes()
    assert read_frame(path).std() > 10
    path.write_bytes(content + b"what a camera puts behind it \xff\xd9")
    assert read_frame(path).std() > 10
    for end in (b"\xff\xd9", b"\xff\xff\xff\xd9"):  # a marker may have more such bytes before it
        path.write_bytes(content[:-2] + end)
        assert read_frame(path).std() > 10
        path.write_bytes(content[: int(len(content) * kept)] + end)
        with pytest.raises(UnreadableInputError, match="pixels end before the picture does"):
            read_frame(path)


@pytest.mark.parametrize("level", [0, 200])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}], ids=str)
def test_sound_jpeg_that_ends_in_a_flat_surround(options: dict[str, Any], level: int, tmp_path: Path) -> None:
    framed = np.full((100, 130, 3), level, np.uint8)
    framed[:60, :80] = SMOOTH[:60, :80]
    Image.fromarray(framed).save(tmp_path / "a.jpg", **options)
    Image.fromarray(framed * 0).save(tmp_path / "black.jpg", **options)
    assert np.abs(read_frame(tmp_path / "a.jpg")[80:, 100:].astype(int) - level).max() < 3
    (tmp_path / "filled.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2] + b"\xff\xff\xd9")
    np.testing.assert_array_equal(read_frame(tmp_path / "filled.jpg"), read_frame(tmp_path / "a.jpg"))
    assert read_frame(tmp_path / "black.jpg").max() == 0


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize(
    ("options", "number"), [({}, 0), ({"tile": (32, 32)}, 4), ({"tile": (32, 32)}, 5), ({"rowsperstrip": 16}, 2)]
)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("closed", [True, False])
def test_jpeg_in_a_tiff_that_ends_early(
    options: dict[str, Any], number: int, photometric: str, orientation: int, closed: bool, tmp_path: Path
) -> None:
    """A strip or tile is cut within its scan and closed again, or not; its count is that of what is left."""
    path = tmp_path / "a.tif"
    clouds = np.cumsum(np.random.default_rng(4).normal(0, 3, (64, 80, 3)), axis=1) * 4 + 128
    pixels = np.clip(clouds, 1, 254).astype(np.uint8)
    pixels[:40, :40] = 255  # tiles that are flat without damage
    turned = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(
        path, pixels, photometric=photometric, compression="jpeg", metadata=None, extratags=turned, **options
    )
    assert read_frame(path).shape == ((64, 80, 3) if orientation == 1 else (80, 64, 3))
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        tag = page.tags["TileByteCounts" if page.is_tiled else "StripByteCounts"]
        width = {3: 2, 4: 4}[int(tag.dtype)]
    left = count * 2 // 3
    content[offset + left - 2 : offset + left] = b"\xff\xd9" if closed else bytes(2)
    place = tag.valueoffset + number * width
    content[place : place + width] = left.to_bytes(width, "little")
    path.write_bytes(content)
    with pytest.raises(UnreadableInputError, match="its pixels end before the picture does"):
        read_frame(path)


def test_jpeg_in_a_tiff_that_libtiff_alone_reads(tmp_path: Path) -> None:
    """A segment that is too short is passed over; without its end a part is whole, too."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((16, 16, 3), 90, np.uint8), photometric="rgb", compression="jpeg", metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
        place, counted = (page.tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts"))
    part = bytes(content[offset : offset + count])
    shown = read_frame(path)
    for other in (part[:2] + b"\xff\xe0\0\6JFIF" + part[2:], part[:-2]):
        content[place : place + 4] = len(content).to_bytes(4, "little")
        content[counted : counted + 4] = len(other).to_bytes(4, "little")
        path.write_bytes(content + other)
        np.testing.assert_array_equal(read_frame(path), shown)


def test_parts_that_do_not_end_flat_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr(checksums, "decode_jpeg", lambda content: decoded.append(content) or decode_jpeg(content))
    pixels = SMOOTH[:64, :96].astype(np.uint8)
    options: dict[str, Any] = {"photometric": "ycbcr", "compression": "jpeg", "metadata": None, "tile": (32, 32)}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    read_frame(tmp_path / "a.tif")
    assert not decoded
    pixels[32:, 32:64] = 200  # the fifth of six tiles
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    read_frame(tmp_path / "a.tif")
    assert len(decoded) == 2


SCENE = np.full((40, 60), 900) + np.random.default_rng(1).integers(-40, 40, (40, 60))
SCENE[25:] = 0  # as the air below a head, which a decoder's own zeros look like
SCENE[:3] += 40000


def lossless_jpeg(picture: Any, predictor: int, bits: int = 16, restart: int = 0) -> bytes:
    """A lossless JPEG by annex H of ITU-T T.81, all of whose Huffman codes have five bits; it restarts every n rows."""
    rows, columns, count = np.atleast_3d(picture).shape
    planes = np.atleast_3d(picture).astype(int)
    data, coded = b"", list[str]()
    for y in range(rows):
        start = y % restart == 0 if restart else y == 0
        for x, channel in itertools.product(range(columns), range(count)):
            a, b, c = (int(planes[y - up, x - left, channel]) for up, left in ((0, 1), (1, 0), (1, 1)))
            inside = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)[predictor - 1]
            predicted = (a if start else inside) if x else 2 ** (bits - 1) if start else b
            difference = (int(planes[y, x, channel]) - predicted + 32767) % 65536 - 32767
            category = abs(difference).bit_length()
            coded.append(f"{category:05b}")
            if 0 < category < 16:
                coded.append(f"{difference if difference > 0 else difference + 2**category - 1:0{category}b}")
        if y == rows - 1 or (restart and (y + 1) % restart == 0):
            stream = "".join(coded)
            stream, coded = stream + "1" * (-len(stream) % 8), []
            data += int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
            data += bytes([0xFF, 0xD0 + y // restart % 8]) if y < rows - 1 else b""
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    frame = struct.pack(">BHHB", bits, rows, columns, count) + b"".join(bytes([n, 0x11, 0]) for n in range(count))
    scan = bytes([count, *(value for n in range(count) for value in (n, 0)), predictor, 0, 0])
    interval = [(0xDD, struct.pack(">H", restart * columns))] if restart else []
    parts = (*interval, (0xC3, frame), (0xC4, table), (0xDA, scan))
    head = b"".join(bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in parts)
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def decoded_by_gdcm(content: bytes, samples: int = 1, bits: int = 16) -> Any:
    rows, columns = SCENE.shape
    return get_decoder(JPEGLossless).as_array(
        encapsulate([content], has_bot=False), index=0, raw=True, decoding_plugin="gdcm", rows=rows, columns=columns,
        samples_per_pixel=samples, bits_allocated=bits, bits_stored=bits, pixel_representation=0, number_of_frames=1,
        photometric_interpretation="MONOCHROME2" if samples == 1 else "RGB", pixel_keyword="PixelData", pixel_vr="OB",
        planar_configuration=0,
    )[0]  # fmt: skip


@pytest.mark.parametrize(("colour", "restart"), [(True, 0), (False, 1), (False, 7), (True, 7)])
@pytest.mark.parametrize("predictor", [1, 5])
def test_lossless_jpeg_of_colours_or_with_restarts_that_ends_early(colour: bool, restart: int, predictor: int) -> None:
    noise = np.random.default_rng(4).integers(0, 12, (*SCENE.shape, 3))
    picture = (SCENE[..., None] // 300 + noise).clip(0, 255).astype(np.uint8) if colour else SCENE
    samples, bits = (3, 8) if colour else (1, 16)
    content = lossless_jpeg(picture, predictor, bits, restart)
    decoded = decoded_by_gdcm(content, samples, bits)
    np.testing.assert_array_equal(decoded, picture)
    check_lossless_jpeg(content, decoded)
    # Where a restart is missing, too, GDCM refuses the frame itself.
    for kept in (len(content) * 3 // 10, -40) if not restart else (-9, -30):
        cut = content[:kept].rstrip(b"\xff") + b"\xff\xd9"
        with pytest.raises(UnreadableInputError, match="its pixels end before the picture does"):
            check_lossless_jpeg(cut, decoded_by_gdcm(cut, samples, bits))


@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_jpeg_that_ends_early(predictor: int) -> None:
    """Cut within its scan and closed again: the decoder makes up the rest without a word."""
    content = lossless_jpeg(SCENE, predictor)
    decoded = decoded_by_gdcm(content)
    np.testing.assert_array_equal(decoded, SCENE)
    check_lossless_jpeg(content, decoded)
    check_lossless_jpeg(content, decoded.astype(np.int16))
    for kept in (0.3, 0.8, 0.97):  # within the noise, and twice in the air
        cut = content[: int(len(content) * kept)].rstrip(b"\xff") + b"\xff\xd9"
        with pytest.raises(UnreadableInputError, match="its pixels end before the picture does"):
            check_lossless_jpeg(cut, decoded_by_gdcm(cut))


def test_lossless_jpeg_of_greatest_differences_and_few_bits() -> None:
    extremes = np.random.default_rng(2).choice([0, 1, 32767, 32768, 65535], (40, 60))
    content = lossless_jpeg(extremes, 1)
    np.testing.assert_array_equal(decoded_by_gdcm(content), extremes)
    check_lossless_jpeg(content, extremes)
    small = np.random.default_rng(3).integers(0, 256, (40, 60)).astype(np.uint8)
    content = lossless_jpeg(small, 4, bits=8)
    check_lossless_jpeg(content, small)
    with pytest.raises(UnreadableInputError, match="end before"):
        check_lossless_jpeg(content[:-9] + b"\xff\xd9", small)


def test_what_of_jpegs_is_not_looked_at(tmp_path: Path) -> None:
    """Of arithmetic codes, without a scan, or without an end: that is for the decoder to say."""
    Image.new("L", (16, 16), 90).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    flat = np.full((16, 16), 90, np.uint8)
    with pytest.raises(UnreadableInputError, match="end before"):
        check_jpeg(content, flat, lambda _: flat + 1)
    scan = content.index(b"\xff\xda")
    for passed in (content.replace(b"\xff\xc0", b"\xff\xc9"), content[:scan] + b"\xff\xd9", content[:-2]):
        check_jpeg(passed, flat, lambda _: flat + 1)


def test_what_of_lossless_jpegs_is_not_looked_at() -> None:
    """No frame header of this kind, restarts within a row, colours of unequal size: nothing is said of such."""
    content = lossless_jpeg(SCENE, 1)
    restarts = content[:2] + b"\xff\xdd\0\4\0\x3d" + content[2:]
    colours = lossless_jpeg(np.zeros((40, 60, 3), np.uint8), 1, 8)[:200]
    check_lossless_jpeg(colours.replace(b"\x11", b"\x21", 1) + b"\xff\xd9", np.ones((40, 60, 3), np.uint8))
    check_lossless_jpeg(colours + b"\xff\xd9", np.ones((40, 60), np.uint8))
    other = content.replace(b"\xff\xc3", b"\xff\xc1", 1)
    for passed in (restarts, other, content[:-2], b"\xff\xd8\xff\xd9"):
        check_lossless_jpeg(passed, np.zeros((40, 60), np.uint16))
    with pytest.raises(UnreadableInputError):
        check_lossless_jpeg(content[:200] + b"\xff\xd9", SCENE)
