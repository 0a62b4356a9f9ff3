# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from monai_anomalyclip.data import UnreadableInputError, read_frame
from monai_anomalyclip.data.frames import pictures_in
from monai_anomalyclip.data.tiff_pages import MAX_PAGES, tiff_pages


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_directories_are_where_tifffile_finds_them(order: str, bigtiff: bool) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((7, 4, 5), np.uint8), byteorder=order, bigtiff=bigtiff, metadata=None)  # type: ignore[arg-type]
    buffer.seek(0)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as tiff:
        assert list(tiff_pages(buffer)) == [page.offset for page in tiff.pages]


@pytest.mark.parametrize("content", [b"", b"II", b"II*", b"II\x10\0rest", b"\x89PNG\r\n\x1a\n", b"MM*\0\0\0\0\x08"])
def test_other_files_have_no_pages(content: bytes) -> None:
    assert list(tiff_pages(io.BytesIO(content))) == []


def chain(offsets: list[int]) -> bytes:
    """A TIFF of empty directories, each of which names the next."""
    return b"II*\0" + struct.pack("<I", 8) + b"".join(struct.pack("<HI", 0, offset) for offset in offsets)


def test_loops_end_and_long_chains_are_refused(tmp_path: Path) -> None:
    assert list(tiff_pages(io.BytesIO(chain([14, 20, 8])))) == [8, 14, 20]
    with pytest.raises(UnreadableInputError, match="truncated: it has no byte 4000"):
        list(tiff_pages(io.BytesIO(chain([14, 4000]))))
    (tmp_path / "long.tif").write_bytes(chain([8 + 6 * (i + 1) for i in range(MAX_PAGES)] + [0]))
    with pytest.raises(UnreadableInputError, match=r"'long\.tif': it has more than the allowed 10,000 pages"):
        pictures_in(tmp_path / "long.tif")


def with_chain_behind(path: Path, offset: int) -> None:
    """Make the last directory of a TIFF, little endian, name one more."""
    with tifffile.TiffFile(path) as tiff:
        directory = tiff.pages[-1].offset
    content = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from("<H", content, directory)
    struct.pack_into("<I", content, directory + 2 + 12 * entries, offset)
    path.write_bytes(content)


@pytest.mark.parametrize("deep", [False, True])
def test_pages_before_a_break_or_beyond_the_bound_are_read(tmp_path: Path, deep: bool) -> None:
    first = np.arange(20, dtype=np.uint16 if deep else np.uint8).reshape(4, 5)
    path, long = tmp_path / "broken.tif", tmp_path / "long.tif"
    for pages in ([first], [first, 8 * first]):
        tifffile.imwrite(path, np.stack(pages), photometric="minisblack", byteorder="<", metadata=None)
        long.write_bytes(path.read_bytes())
        with_chain_behind(path, 10**6)
        size = long.stat().st_size + long.stat().st_size % 2
        with_chain_behind(long, size)
        links = [struct.pack("<HI", 0, size + 6 * (i + 1)) for i in range(MAX_PAGES)]
        long.write_bytes(long.read_bytes().ljust(size, b"\0") + b"".join(links))
        for file in (path, long):
            with pytest.raises(UnreadableInputError):
                pictures_in(file)
            for number, page in enumerate(pages):
                np.testing.assert_array_equal(read_frame(file, number)[..., 0], page)


def test_a_broken_chain_does_not_change_the_white(tmp_path: Path) -> None:
    """Pages that are reached before the break have one white, as in a sound file."""
    path, sound = tmp_path / "broken.tif", tmp_path / "sound.tif"
    pages = np.stack([np.full((4, 5), 200, np.uint16), np.full((4, 5), 4000, np.uint16)])
    for file in (path, sound):
        tifffile.imwrite(file, pages, photometric="minisblack", byteorder="<", metadata=None)
    with_chain_behind(path, 10**6)
    for number in range(2):
        np.testing.assert_array_equal(read_frame(path, number), read_frame(sound, number))
    assert read_frame(path).max() == 12


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_missing_parts_are_not_read_as_black(tmp_path: Path, photometric: str, tile: tuple[int, int] | None) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    path = tmp_path / "part.tif"
    tifffile.imwrite(
        path, pixels, photometric=photometric, planarconfig="contig", tile=tile, rowsperstrip=8, metadata=None
    )
    np.testing.assert_array_equal(read_frame(path), pixels)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["ImageLength"]
    content = bytearray(path.read_bytes())
    content[tag.valueoffset : tag.valueoffset + 2] = struct.pack("<H", 400)  # ten times as high as what is there
    path.write_bytes(content)
    with pytest.raises(UnreadableInputError, match=r"it holds \d+ of \d+ parts"):
        read_frame(path)


@pytest.mark.parametrize("name", ["StripOffsets", "SamplesPerPixel", "ImageWidth", "Compression"])
@pytest.mark.parametrize("kind", [2, 5, 11, 1027])
def test_a_tag_of_another_type_is_not_read_as_black(tmp_path: Path, name: str, kind: int) -> None:
    """Text, fractions, floating point and no type at all: libtiff gives up, Pillow returns zeros."""
    path = write_two_pages(tmp_path)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[1].tags[name].offset
    content = bytearray(path.read_bytes())
    content[offset + 2 : offset + 4] = struct.pack("<H", kind)
    path.write_bytes(content)
    assert read_frame(path, 0).max() == 255
    with pytest.raises(UnreadableInputError, match="of a type that cannot be"):
        read_frame(path, 1)


def test_planes_arranged_as_no_file_can_are_refused(tmp_path: Path) -> None:
    path = write_two_pages(tmp_path)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[1].tags["PlanarConfiguration"].valueoffset
    content = bytearray(path.read_bytes())
    content[offset : offset + 2] = struct.pack("<H", 4098)
    path.write_bytes(content)
    assert read_frame(path, 0).max() == 255
    with pytest.raises(UnreadableInputError, match="4098"):
        read_frame(path, 1)


def write_two_pages(folder: Path) -> Path:
    pages = np.full((2, 24, 20, 3), 255, np.uint8)
    tifffile.imwrite(
        folder / "pages.tif", pages, photometric="rgb", byteorder="<", rowsperstrip=4, compression="packbits"
    )
    return folder / "pages.tif"


def test_no_text_of_a_file_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """tifffile itself warns of a description that is no text, and quotes it."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    path = tmp_path / "DOE.tif"
    tifffile.imwrite(
        path, pixels, photometric="minisblack", planarconfig="contig", metadata=None, description=b"JANE \x81\x8d ROE"
    )
    with caplog.at_level(logging.DEBUG):
        np.testing.assert_array_equal(read_frame(path), pixels)
    assert "tifffile" not in {record.name for record in caplog.records}
    assert "JANE" not in caplog.text
    assert "DOE" not in caplog.text
