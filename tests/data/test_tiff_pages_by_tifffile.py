# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from monai_anomalyclip.data import UnreadableInputError, load_frame, read_frame
from monai_anomalyclip.data.frames import stored_size


def tiff_of_jpegs(path: Path, parts: list[bytes], rows: int, columns: int, **tags: tuple[int, ...]) -> Path:
    """A TIFF (YCbCr) of JPEG strips, written by TIFF 6.0, that claims colours of half the rows and columns."""
    values = {
        256: (columns,), 257: (rows,), 258: (8, 8, 8), 259: (7,), 262: (6,), 277: (3,), 278: (16,), 530: (2, 2),
        273: tuple(0 for _ in parts), 279: tuple(map(len, parts)),
    }  # fmt: skip
    values |= {int(tag.removeprefix("tag")): value for tag, value in tags.items()}
    behind = 8 + 2 + 12 * len(values) + 4
    sizes = {tag: 4 * len(value) for tag, value in values.items() if len(value) > 1}
    starts = {tag: behind + sum(size for other, size in sizes.items() if other < tag) for tag in sizes}
    data = behind + sum(sizes.values())
    values[273] = tuple(data + sum(map(len, parts[:number])) for number in range(len(parts)))
    directory, beyond = struct.pack("<H", len(values)), b""
    for tag, value in sorted(values.items()):
        packed = struct.pack(f"<{len(value)}I", *value)
        directory += struct.pack("<HHI", tag, 4, len(value))
        directory += packed if len(value) == 1 else struct.pack("<I", starts[tag])
        beyond += b"" if len(value) == 1 else packed
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + beyond + b"".join(parts))
    return path


def test_jpeg_whose_sampling_libtiff_refuses_is_read(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40) * 3, np.arange(50) * 2)[..., None] + np.array([0, 20, 40])
    parts, shown = [], []
    for start in (0, 16, 32):
        buffer = io.BytesIO()
        Image.fromarray(smooth[start : start + 16].astype(np.uint8)).save(buffer, "JPEG", subsampling=0, quality=95)
        parts.append(buffer.getvalue())
        shown.append(np.asarray(Image.open(buffer)))
    path = tiff_of_jpegs(tmp_path / "a.tif", parts, 40, 50)
    with pytest.raises(OSError, match="decoder error"):
        Image.open(path).load()
    np.testing.assert_array_equal(read_frame(path), np.concatenate(shown))
    cut = tiff_of_jpegs(tmp_path / "b.tif", [*parts[:2], parts[2][: len(parts[2]) // 2]], 40, 50)
    with pytest.raises(UnreadableInputError, match=r"'b\.tif': the file is truncated or damaged"):
        read_frame(cut)


GRAY = np.random.default_rng(0).integers(0, 65536, (5, 7)).astype(np.uint16)
COLOURS = np.random.default_rng(1).integers(0, 65536, (5, 7, 3)).astype(np.uint16)


def turned(shown: np.ndarray, orientation: int) -> np.ndarray:
    """TIFF 6.0, tag 274, by what lies in the first row and the first column."""
    if orientation >= 5:
        shown = shown.swapaxes(0, 1)
    flips = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
    down, across = flips[orientation]
    return shown[::down, ::across]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (GRAY, {"photometric": "minisblack"}),
        (GRAY, {"photometric": "miniswhite"}),
        ((GRAY // 256).astype(np.uint8), {"photometric": "minisblack"}),
        ((GRAY // 256).astype(np.uint8), {"photometric": "miniswhite"}),
        (COLOURS, {"photometric": "rgb"}),
        (np.moveaxis(COLOURS, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        ((COLOURS // 256).astype(np.uint8), {"photometric": "rgb", "tile": (16, 16)}),
        (COLOURS, {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_all_byte_orders_and_orientations(
    samples: np.ndarray, options: dict[str, Any], order: Any, bigtiff: bool, compression: Any, orientation: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Pillow takes rows for columns in some, and does not know others."""
    tags = [(274, "H", 1, orientation, True)]
    settings = {**options, "byteorder": order, "bigtiff": bigtiff, "compression": compression, "extratags": tags}
    tifffile.imwrite(tmp_path / "a.tif", samples, metadata=None, **settings)
    white = 255 if samples.dtype == np.uint8 else 65535
    stored = np.moveaxis(samples, 0, 2) if "separate" in options.values() else samples
    stored = white - stored if options["photometric"] == "miniswhite" else stored
    expected = np.rint(turned(stored.reshape(5, 7, -1), orientation) * (255.0 / white))
    shown = read_frame(tmp_path / "a.tif")
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, shown.shape))
    assert stored_size(tmp_path / "a.tif") == shown.shape[:2]
    assert load_frame(tmp_path / "a.tif").meta["notes"] == ""


@pytest.mark.parametrize("bits", [10, 14])
def test_depths_that_only_tifffile_reads(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    samples = GRAY >> (16 - bits)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="minisblack", bitspersample=bits, metadata=None)
    expected = np.rint(samples * (255.0 / (2**bits - 1)))
    np.testing.assert_array_equal(read_frame(tmp_path / "a.tif")[..., 0], expected)


def test_pages_of_16_bits_have_one_white(tmp_path: Path) -> None:
    dark, bright = np.full((4, 5), 65535 - 100, np.uint16), np.full((4, 5), 65535 - 3000, np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as tiff:
        for page in (dark, bright):
            tiff.write(page, photometric="miniswhite", metadata=None)
    assert [int(read_frame(tmp_path / "a.tif", page)[0, 0, 0]) for page in (0, 1)] == [6, 187]


def test_kinds_without_a_meaning_are_refused_in_a_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.float16), photometric="minisblack", metadata=None)
    with pytest.raises(UnreadableInputError, match=r"a TIFF of 1 samples of 16 bits \(MINISBLACK, float16\)"):
        read_frame(tmp_path / "a.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["int16", "uint32", "float32"])
def test_numbers_of_three_samples_tagged_as_gray_are_refused(planar: Any, dtype: str, tmp_path: Path) -> None:
    samples = np.ones((4, 5, 3) if planar == "contig" else (3, 4, 5), dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="minisblack", planarconfig=planar, metadata=None)
    with pytest.raises(UnreadableInputError, match=r"a TIFF of (3|several) samples .* save it as (gray or )?RGB"):
        read_frame(tmp_path / "a.tif")


BIG_ENDIAN: dict[str, Any] = {"bigtiff": True, "byteorder": ">", "metadata": None}  # Pillow errs with such


def test_palettes(tmp_path: Path) -> None:
    entries = np.random.default_rng(2).integers(0, 256, (4, 5), dtype=np.uint8)
    colours = np.random.default_rng(3).integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", entries, photometric="palette", colormap=colours, **BIG_ENDIAN)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.tif"), (colours.T // 256)[entries])


def test_a_further_sample_that_is_no_transparency_is_left_out(tmp_path: Path) -> None:
    samples = np.random.default_rng(4).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    samples[..., 3] = 9
    for kind, factor in (("unspecified", 1), ("unassalpha", 9 / 255)):
        options = {**BIG_ENDIAN, "photometric": "rgb", "extrasamples": [kind]}
        tifffile.imwrite(tmp_path / "a.tif", samples, **options)
        np.testing.assert_allclose(read_frame(tmp_path / "a.tif"), samples[..., :3] * factor, atol=1)


def test_what_imagecodecs_is_lacking_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tifffile says it; of another of its complaints only that the file is damaged."""
    tifffile.imwrite(tmp_path / "a.tif", COLOURS[..., 0], photometric="minisblack", **BIG_ENDIAN)

    def complain(text: str) -> None:
        def asarray(_: Any) -> None:
            raise ValueError(text)

        monkeypatch.setattr(tifffile.TiffPage, "asarray", asarray)

    complain("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")
    with pytest.raises(
        UnreadableInputError, match=r"16 bits \(NONE\) need the package imagecodecs: install it, or save it"
    ):
        read_frame(tmp_path / "a.tif")
    complain("cannot reshape")
    with pytest.raises(UnreadableInputError, match=r"'a.tif': .*damaged"):
        read_frame(tmp_path / "a.tif")


@pytest.mark.parametrize("cut", [20, 60])
def test_cut_files_are_damaged(cut: int, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="miniswhite", byteorder=">", metadata=None)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:-cut])
    with pytest.raises(UnreadableInputError, match=r"truncated|damaged"):
        read_frame(tmp_path / "a.tif")
