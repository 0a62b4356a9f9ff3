# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_anomalyclip.data import UnreadableInputError, load_frame, read_frame, read_mask
from monai_anomalyclip.data.frames import pictures_in, stored_size, to_rgb
from monai_anomalyclip.data.input_files import FRAME_SUFFIXES

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GRAY = RGB[..., 0]


def saved(tmp_path: Path, pixels: np.ndarray | Image.Image, name: str, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF"])
def test_lossless_rgb_and_gray(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_frame(saved(tmp_path, RGB, name)), RGB)
    gray = read_frame(saved(tmp_path, GRAY, f"g{name}"))
    assert gray.dtype == np.uint8
    np.testing.assert_array_equal(gray, np.stack([GRAY] * 3, axis=-1))


def test_jpeg_cmyk_one_bit_palette_and_gif(tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    assert np.abs(read_frame(saved(tmp_path, flat, "a.jpg", quality=95)).astype(int) - flat).max() <= 3
    cmyk = Image.fromarray(flat).convert("CMYK")
    assert np.abs(read_frame(saved(tmp_path, cmyk, "c.jpg", quality=95)).astype(int) - flat).max() <= 4
    bits = Image.fromarray(GRAY > 127)
    np.testing.assert_array_equal(read_frame(saved(tmp_path, bits, "b.png"))[..., 1], (GRAY > 127) * 255)

    indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    indices.putpalette([10, 20, 30, 200, 100, 0, 1, 2, 3])
    expected = np.array([[[10, 20, 30], [200, 100, 0]], [[1, 2, 3], [200, 100, 0]]], np.uint8)
    np.testing.assert_array_equal(read_frame(saved(tmp_path, indices, "p.png")), expected)
    second = indices.copy()
    second.paste(2, (0, 0, 2, 2))
    gif = saved(tmp_path, indices, "p.gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_frame(gif), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    # The pixels that each EXIF orientation must show, by the standard's definition of row 0 and column 0.
    upright = {
        1: GRAY, 2: GRAY[:, ::-1], 3: GRAY[::-1, ::-1], 4: GRAY[::-1], 5: GRAY.T,
        6: np.rot90(GRAY, -1), 7: GRAY[::-1, ::-1].T, 8: np.rot90(GRAY),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_frame(saved(tmp_path, GRAY, "e.png", exif=exif))[..., 0], upright)


def test_alpha_is_dropped_when_opaque_and_composited_on_black_otherwise(tmp_path: Path) -> None:
    opaque = np.dstack([RGB, np.full(GRAY.shape, 255, np.uint8)])
    np.testing.assert_array_equal(read_frame(saved(tmp_path, opaque, "o.png")), RGB)
    alpha = RNG.integers(0, 256, GRAY.shape, dtype=np.uint8)
    seen = read_frame(saved(tmp_path, np.dstack([RGB, alpha]), "t.png")).astype(float)
    assert np.abs(seen - RGB * (alpha[..., None] / 255.0)).max() <= 1
    gray_alpha = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(np.zeros_like(GRAY))])
    assert read_frame(saved(tmp_path, gray_alpha, "la.png")).max() == 0
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([255, 255, 255, 9, 8, 7])
    np.testing.assert_array_equal(
        read_frame(saved(tmp_path, palette, "pt.png", transparency=0)), [[[0, 0, 0], [9, 8, 7]]]
    )


@pytest.mark.parametrize(("maximum", "white"), [(65535, 65535), (20000, 65535), (4095, 4095), (3000, 4095), (255, 255)])
@pytest.mark.parametrize("name", ["d.png", "d.tif"])
def test_deep_gray_is_scaled_by_its_bit_range(tmp_path: Path, maximum: int, white: int, name: str) -> None:
    deep = np.linspace(0, maximum, 600).round().astype(np.uint16).reshape(20, 30)
    expected = np.round(deep / white * 255)
    assert np.abs(read_frame(saved(tmp_path, deep, name))[..., 2] - expected).max() == 0
    tifffile.imwrite(tmp_path / "big.tif", deep, byteorder=">")
    assert np.abs(read_frame(tmp_path / "big.tif")[..., 2] - expected).max() == 0


@pytest.mark.parametrize(
    ("maxima", "white"), [((200, 3000, 60000), 65535), ((3000, 200, 40), 4095), ((9, 200, 40), 255)]
)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_pages_of_deep_gray_have_one_white(
    tmp_path: Path, maxima: tuple[int, ...], white: int, photometric: str
) -> None:
    """A dark page stays darker than a bright one, in whatever order they are read."""
    pages = np.stack([np.linspace(0, maximum, 600).round().reshape(20, 30) for maximum in maxima]).astype(np.uint16)
    stored = 65535 - pages if photometric == "miniswhite" else pages
    path = tmp_path / "z.tif"
    tifffile.imwrite(path, stored, photometric=photometric, metadata=None)
    for page in (2, 0, 1):
        np.testing.assert_array_equal(read_frame(path, page)[..., 0], np.round(pages[page] / white * 255))
    tifffile.imwrite(path, stored[:2], photometric=photometric, metadata=None)  # another file of that name
    other = next(bound for bound in (255, 4095, 65535) if max(maxima[:2]) <= bound)
    np.testing.assert_array_equal(read_frame(path)[..., 0], np.round(pages[0] / other * 255))


def test_pages_that_cannot_be_read_have_no_part_in_the_white(tmp_path: Path) -> None:
    deep = np.linspace(0, 3000, 600).round().astype(np.uint16).reshape(20, 30)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        for values in (GRAY.astype(np.float32), deep, deep.astype(np.int32) - 5000, deep.astype(np.int32) * 40, GRAY):
            writer.write(values, metadata=None)
        writer.write(np.full((50, 50), 60000, np.uint16), metadata=None)
    for allowed, white in ((2499, 4095), (2500, 65535)):
        seen = read_frame(tmp_path / "mixed.tif", 1, max_pixels=allowed)[..., 0]
        np.testing.assert_array_equal(seen, np.round(deep / white * 255))
    np.testing.assert_array_equal(read_frame(tmp_path / "mixed.tif", 4)[..., 0], GRAY)


def test_white_is_zero(tmp_path: Path) -> None:
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
        tifffile.imwrite(tmp_path / "w.tif", white - GRAY.astype(dtype) * (white // 255), photometric="miniswhite")
        np.testing.assert_array_equal(read_frame(tmp_path / "w.tif")[..., 0], GRAY)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_three_samples_tagged_as_gray(tmp_path: Path, planar: str, compression: str | None) -> None:
    """As in CVC-ClinicDB; Pillow cannot open it or gives the first sample."""
    samples = RGB if planar == "contig" else RGB.transpose(2, 0, 1)
    options = {"photometric": "minisblack", "planarconfig": planar, "compression": compression, "metadata": None}
    tifffile.imwrite(tmp_path / "cvc.tif", samples, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_frame(tmp_path / "cvc.tif"), RGB)


@pytest.mark.parametrize("kind", ["rgb", "gray", "deep", "white is zero", "tagged gray", "bigtiff"])
def test_pages_of_a_tiff_are_frames(tmp_path: Path, kind: str) -> None:
    pages = RNG.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    path = tmp_path / "p.tif"
    if kind in ("rgb", "bigtiff"):
        options = {"bigtiff": True} if kind == "bigtiff" else {"byteorder": ">"}  # Pillow: not both
        tifffile.imwrite(path, pages, photometric="rgb", metadata=None, **options)  # type: ignore[arg-type]
    elif kind == "tagged gray":
        tifffile.imwrite(path, pages, photometric="minisblack", planarconfig="contig", metadata=None)
    else:
        pages[..., 1:] = pages[..., :1]
        depth = np.uint16 if kind in ("deep", "white is zero") else np.uint8
        stored = pages[..., 0].astype(depth) * (257 if depth is np.uint16 else 1)
        stored[:, 0, 0] = np.iinfo(depth).max  # white, which tells the scale
        pages[:, 0, 0] = 255
        if kind == "white is zero":
            tifffile.imwrite(path, np.iinfo(depth).max - stored, photometric="miniswhite", metadata=None)
        else:
            Image.fromarray(stored[0]).save(path, save_all=True, append_images=[Image.fromarray(s) for s in stored[1:]])
    assert len(pictures_in(path)[0]) == len(tifffile.TiffFile(path).pages) == 3
    for page in range(3):
        np.testing.assert_array_equal(read_frame(path, page), pages[page])
    np.testing.assert_array_equal(load_frame(path, 2).permute(1, 2, 0), pages[2])
    np.testing.assert_array_equal(read_frame(path), pages[0])
    for absent in (3, -1):
        with pytest.raises(UnreadableInputError, match=rf"'p\.tif': it has no page {absent}, counted from 0"):
            read_frame(path, absent)
    with pytest.raises(UnreadableInputError, match="it is a TIFF of 3 pages"):
        read_mask(path)  # which page would be the mask?


def test_other_pictures_have_one_page(tmp_path: Path) -> None:
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    for name in ("a.png", "a.gif", "a.jpg", "a.tif", "a.webp", "a.jp2", "a.pgm"):
        path = saved(tmp_path, frames[0], name)
        assert len(pictures_in(path)[0]) == 1
        read_frame(path, 0)
        with pytest.raises(UnreadableInputError, match="no page 1"):
            read_frame(path, 1)
    with pytest.raises(UnreadableInputError, match="no such file"):
        pictures_in(tmp_path / "absent.tif")


@pytest.mark.parametrize("name", ["m.gif", "m.png", "m.webp"])
def test_frames_of_a_moving_picture(tmp_path: Path, name: str) -> None:
    pictures = [np.full((20, 30, 3), level, np.uint8) for level in (10, 120, 240)]
    pictures[1][5:9, 5:9] = 255
    frames = [Image.fromarray(picture) for picture in pictures]
    options = {"lossless": True} if name == "m.webp" else {}
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=100, **options)
    assert pictures_in(path) == ([0, 1, 2], 0)
    for page in (2, 0, 1):
        np.testing.assert_array_equal(read_frame(path, page), pictures[page])
    with pytest.raises(UnreadableInputError, match="no page 3"):
        read_frame(path, 3)
    for read in (read_mask, lambda path: read_frame(path, None)):
        with pytest.raises(UnreadableInputError, match="it has 3 frames; save the one you mean"):
            read(path)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_thumbnails_and_masks_of_a_tiff_are_no_pictures(tmp_path: Path, byteorder: str, bigtiff: bool) -> None:
    options: dict[str, object] = {"metadata": None}
    path = tmp_path / "t.tif"
    with tifffile.TiffWriter(path, byteorder=byteorder, bigtiff=bigtiff) as writer:  # type: ignore[arg-type]
        writer.write(RGB[::4, ::4], photometric="rgb", subfiletype=1, **options)
        writer.write(RGB, photometric="rgb", **options)
        writer.write(GRAY > 9, photometric="minisblack", subfiletype=4, **options)
        writer.write(GRAY, photometric="minisblack", subfiletype=2, **options)  # one page of many: a picture
    assert pictures_in(path) == ([1, 3], 2)
    with tifffile.TiffWriter(path, byteorder=byteorder, bigtiff=bigtiff) as writer:  # type: ignore[arg-type]
        writer.write(RGB[::4, ::4], photometric="rgb", subfiletype=1, **options)
        writer.write(RGB, photometric="rgb", **options)
    if not (bigtiff and byteorder == ">"):  # which Pillow does not read
        np.testing.assert_array_equal(read_frame(path, None), RGB)
    tifffile.imwrite(path, RGB, photometric="rgb", subfiletype=1, metadata=None)
    assert pictures_in(path) == ([0], 0)  # what is all that there is is meant


def test_colours_that_pillow_cannot_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Pillow 11 and 12 with LAB; premultiplied gray is brought to RGB in two steps."""
    gray = Image.merge("LA", [Image.new("L", (3, 2), 200), Image.new("L", (3, 2), 128)])
    assert np.abs(to_rgb(gray.convert("La"), "a.tif").astype(int) - 100).max() <= 1
    plain = Image.Image.convert

    def refuse(picture: Image.Image, mode: str) -> Image.Image:
        if picture.mode == "LAB":
            raise ValueError("conversion from LAB to RGB not supported")
        return plain(picture, mode)

    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(
        UnreadableInputError, match=r"'a.tif': colours of the kind LAB are not supported; save it as RGB"
    ):
        to_rgb(Image.new("LAB", (3, 2)), "a.tif")


def test_further_pictures_in_a_jpeg_are_left_out(tmp_path: Path) -> None:
    eyes = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (200, 40)]
    eyes[0].save(tmp_path / "stereo.jpg", "MPO", save_all=True, append_images=eyes[1:])
    assert pictures_in(tmp_path / "stereo.jpg") == ([0], 1)
    assert abs(int(read_frame(tmp_path / "stereo.jpg", None).min()) - 200) < 3


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
def test_further_pictures_in_a_pnm_are_counted(tmp_path: Path, mode: str) -> None:
    """Netpbm's formats may follow each other in a file, as its programs write films."""
    pixels = np.arange(35).reshape(5, 7)
    picture = Image.fromarray((pixels * 900).astype(np.uint16) if mode == "I;16" else (pixels * 6).astype(np.uint8))
    buffer = io.BytesIO()
    (picture if mode == "I;16" else picture.convert(mode)).save(buffer, "PPM")
    path = tmp_path / "a.pnm"
    for count in (1, 2, 5):
        path.write_bytes(buffer.getvalue() * count)
        assert pictures_in(path) == ([0], count - 1)
    for behind in (b"\n", b"Peter", b"P5 x\n", b"P5 0 0 255\n", b"P6 3 2 999999\n"):
        path.write_bytes(buffer.getvalue() + behind)
        assert pictures_in(path) == ([0], 0)
    path.write_bytes(b"P5 3 1 4095\n" + b"\1\2" * 3 + b"P2\n3 1\n9\n1 2 3\nP2\n")
    assert pictures_in(path) == ([0], 1)


def test_a_page_that_cannot_be_read_is_no_obstacle_to_the_others(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(RGB, photometric="rgb", metadata=None)
        writer.write(GRAY.astype(np.float32), metadata=None)
        writer.write(GRAY, metadata=None)
    assert len(pictures_in(tmp_path / "mixed.tif")[0]) == 3
    np.testing.assert_array_equal(read_frame(tmp_path / "mixed.tif", 2)[..., 0], GRAY)
    with pytest.raises(UnreadableInputError, match="floating point"):
        read_frame(tmp_path / "mixed.tif", 1)
    with pytest.raises(UnreadableInputError, match="30 x 20 pixels are more"):
        read_frame(tmp_path / "mixed.tif", 2, max_pixels=599)


def test_refused_pictures(tmp_path: Path) -> None:
    def refused(path: Path, match: str) -> None:
        with pytest.raises(UnreadableInputError, match=match) as caught:
            read_frame(path)
        assert str(tmp_path) not in str(caught.value)
        assert path.name in str(caught.value)

    tifffile.imwrite(tmp_path / "float.tif", GRAY.astype(np.float32))
    refused(tmp_path / "float.tif", "floating point")
    tifffile.imwrite(tmp_path / "signed.tif", GRAY.astype(np.int16) - 100)
    refused(tmp_path / "signed.tif", r"0\.\.65535")
    refused(tmp_path / "absent.png", "no such file")
    (tmp_path / "text.png").write_text("I am a text")
    refused(tmp_path / "text.png", "not a picture")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "not a picture")


@pytest.mark.parametrize("name", ["t.png", "t.jpg", "t.tif", "t.bmp", "t.gif"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8), name)
    whole = path.read_bytes()
    for keep in (0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(UnreadableInputError, match=name) as caught:
            read_frame(path)
        assert str(tmp_path) not in str(caught.value)


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 12_000, 65_535, 2_000_000_000])
@pytest.mark.filterwarnings("default")
def test_decompression_bombs_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    with pytest.raises(UnreadableInputError, match=r"pixels"):
        read_frame(tmp_path / "bomb.png")
    with pytest.raises(UnreadableInputError, match="30 x 20 pixels are more than the allowed 599"):
        read_frame(saved(tmp_path, RGB, "small.png"), max_pixels=599)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    small = RGB[:6, :8]
    if kind == "TIFF":
        tifffile.imwrite(buffer, np.stack([small, small]), photometric="rgb", compression="zlib", rowsperstrip=2)
    elif kind == "tagged gray":
        tifffile.imwrite(buffer, small, photometric="minisblack", planarconfig="contig", rowsperstrip=2, metadata=None)
    elif kind == "palette":
        Image.fromarray(small).quantize(8).save(buffer, "PNG", transparency=1)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(small).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "palette", "JPEG", "TIFF", "tagged gray"])
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), max_size=3),
    keep=st.one_of(st.just(10_000), st.integers(0, 1000)),
    page=st.integers(0, 1),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_pictures_are_read_or_refused(
    tmp_path: Path, kind: str, flips: list[tuple[int, int]], keep: int, page: int
) -> None:
    content = bytearray(encoded(kind))
    for position, value in flips:
        content[position % len(content)] = value
    path = tmp_path / "mutated"
    path.write_bytes(content[:keep])
    try:
        pictures_in(path)
        picture, message = read_frame(path, page), ""
    except UnreadableInputError as error:
        picture, message = None, str(error)
    if picture is None:
        assert message.startswith("Cannot read 'mutated': ")
        assert str(tmp_path) not in message
    else:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.size <= 3 * 2**16  # no small file turns into a large picture


def test_real_frames(real_data: Path) -> None:
    paths = sorted(p for p in (real_data / "frames").rglob("*") if p.name.lower().endswith(FRAME_SUFFIXES))[::9]
    assert len(paths) >= 15
    for path in paths:
        with Image.open(path) as image:
            size = image.size
        assert read_frame(path).shape == (size[1], size[0], 3)
    pages = real_data / "frames/endoscopy_8/masks/0000600_mask.tif"
    assert len(pictures_in(pages)[0]) == 5
    for page in range(5):
        with Image.open(pages) as image:
            image.seek(page)
            np.testing.assert_array_equal(read_frame(pages, page)[..., 0], np.asarray(image))


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(b"unseen")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("PIL.Image.open", refuse)
    with pytest.raises(UnreadableInputError, match=r"'frame\.png': you have no permission to read it"):
        load_frame(path)


def test_stored_size(tmp_path: Path) -> None:
    pages = [Image.new("L", size) for size in ((5, 7), (8, 3))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert [stored_size(tmp_path / "a.tif", page) for page in (0, 1)] == [(7, 5), (3, 8)]
    (tmp_path / "link.png").symlink_to("secret.png")
    with pytest.raises(UnreadableInputError, match=r"^Cannot read 'link\.png': there is no such file\.$"):
        stored_size(tmp_path / "link.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableInputError, match="is not a picture"):
        stored_size(tmp_path / "b.png")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_stored_size_of_samples_tagged_as_gray(tmp_path: Path, planar: str) -> None:
    """Whatever is read has a size."""
    pages = np.stack([RGB, RGB])
    samples = pages if planar == "contig" else pages.transpose(0, 3, 1, 2)
    tifffile.imwrite(tmp_path / "cvc.tif", samples, photometric="minisblack", planarconfig=planar, metadata=None)
    for page in (0, 1):
        assert stored_size(tmp_path / "cvc.tif", page) == read_frame(tmp_path / "cvc.tif", page).shape[:2] == (20, 30)


def packed_by_lzw(indices: list[int]) -> bytes:
    """GIF89a, appendix F, for 16 colours: the table is cleared before its codes would grow."""
    codes = [code for start in range(0, len(indices), 14) for code in (16, *indices[start : start + 14])] + [17]
    bits = sum(code << (5 * place) for place, code in enumerate(codes))
    data = bits.to_bytes((5 * len(codes) + 7) // 8, "little")
    blocks = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"\x04" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


@pytest.mark.parametrize("seed", range(12))
def test_gif_whose_frames_are_parts_that_are_disposed_of(seed: int, tmp_path: Path) -> None:
    """Frames anywhere, transparent or interlaced, with palettes of their own, laid on by GIF89a, 23 (c) iv."""
    random = np.random.default_rng(seed)
    height, width = 9, 12
    colours = random.integers(1, 256, (16, 3)).astype(np.uint8)
    content = b"GIF89a" + np.array([width, height], "<u2").tobytes() + b"\xf3\0\0" + colours.tobytes()
    canvas, expected = np.zeros((height, width, 3), np.uint8), []
    for number in range(5):
        left, top = (0, 0) if number == 0 else (int(random.integers(0, width - 1)), int(random.integers(0, height - 1)))
        rows, columns = height - top, width - left
        if number:
            rows, columns = int(random.integers(1, rows + 1)), int(random.integers(1, columns + 1))
        disposal = int(random.choice([0, 1, 3] if number else [0, 1]))
        clear = int(random.integers(0, 16)) if number else -1
        own, interlaced = bool(random.integers(0, 2)), bool(random.integers(0, 2))
        palette = random.integers(1, 256, (16, 3)).astype(np.uint8) if own else colours
        pixels = random.integers(0, 16, (rows, columns))
        stored = np.concatenate([pixels[first::step] for first, step in ((0, 8), (4, 8), (2, 4), (1, 2))])
        content += b"\x21\xf9\x04" + bytes([disposal << 2 | (clear >= 0), 5, 0, max(clear, 0), 0]) + b","
        content += np.array([left, top, columns, rows], "<u2").tobytes() + bytes([0x83 * own | 0x40 * interlaced])
        content += palette.tobytes() * own + packed_by_lzw((stored if interlaced else pixels).reshape(-1).tolist())
        before, seen = canvas.copy(), pixels != clear
        canvas[top : top + rows, left : left + columns][seen] = palette[pixels[seen]]
        expected.append(canvas.copy())
        canvas = before if disposal == 3 else canvas
    (tmp_path / "a.gif").write_bytes(content + b";")
    assert pictures_in(tmp_path / "a.gif") == (list(range(5)), 0)
    for number, shown in enumerate(expected):
        np.testing.assert_array_equal(read_frame(tmp_path / "a.gif", number), shown)


def test_complaints_of_the_decoder_become_a_note(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (20, 10), (10, 20, 30)).save(path, dpi=(100, 100))
    assert load_frame(path).meta["notes"] == ""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[282].offset  # XResolution  # type: ignore[union-attr]
    struct.pack_into("<I", content, place + 8, 2**31)  # its value lies behind the file's end
    path.write_bytes(content)
    assert "complained of damage" in load_frame(path).meta["notes"]
    assert read_frame(path)[0, 0].tolist() == [10, 20, 30]
