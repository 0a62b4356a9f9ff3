# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Moving PNG files, built and laid together here chunk by chunk, as the specification of APNG says."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.data import InputCatalogue, UnreadableInputError, load_input, read_frame, read_mask
from monai_anomalyclip.data.frames import pictures_in, stored_size

HEIGHT, WIDTH, FRAMES = 9, 12, 5
GRAY, COLOUR, PALETTE, COLOUR_ALPHA = 0, 2, 3, 6  # colour types of PNG
BANDS = {GRAY: 1, COLOUR: 3, PALETTE: 1, COLOUR_ALPHA: 4}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def header(kind: int, bits: int = 8) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)


def packed(pixels: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


def control(order: int, left: int, top: int, width: int, height: int, dispose: int, blend: int) -> tuple[bytes, bytes]:
    return b"fcTL", struct.pack(">IIIIIHHBB", order, width, height, left, top, 1, 10, dispose, blend)


def told(frames: int) -> tuple[bytes, bytes]:
    return b"acTL", struct.pack(">II", frames, 0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("kind", [GRAY, COLOUR, PALETTE, COLOUR_ALPHA])
def test_frames_by_the_specification(kind: int, hidden: bool, seed: int, tmp_path: Path) -> None:
    """Frames anywhere, laid over or in place of others and disposed of, also beside a picture that is none of them."""
    random = np.random.default_rng(seed)
    colours = random.integers(1, 256, (16, 3)).astype(np.uint8)
    clear = 5  # the entry, gray or colour that counts as transparent

    def drawn(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """What is stored, and what it stands for, in RGBA."""
        entries = random.integers(0, 16, (height, width)).astype(np.uint8)
        alpha = np.where(entries == clear, 0, 255).astype(np.uint8)
        if kind == GRAY:
            return entries, np.dstack([entries] * 3 + [alpha])
        seen = np.dstack([colours[entries], alpha])
        return {PALETTE: entries, COLOUR: seen[..., :3], COLOUR_ALPHA: seen}[kind], seen

    def stored(pixels: np.ndarray) -> bytes:
        return packed(np.ascontiguousarray(pixels))

    chunks = [header(kind), told(FRAMES)]
    if kind == PALETTE:
        chunks += [(b"PLTE", colours.tobytes()), (b"tRNS", bytes([255] * clear + [0]))]
    elif kind != COLOUR_ALPHA:
        chunks.append((b"tRNS", struct.pack(*((">H", clear) if kind == GRAY else (">HHH", *map(int, colours[clear]))))))
    if hidden:
        chunks.append((b"IDAT", stored(drawn(HEIGHT, WIDTH)[0])))
    canvas, expected, order = np.zeros((HEIGHT, WIDTH, 4), np.uint8), [], 0
    for number in range(FRAMES):
        left, top, width, height = 0, 0, WIDTH, HEIGHT
        if number or hidden:
            left, top = int(random.integers(0, WIDTH - 1)), int(random.integers(0, HEIGHT - 1))
            width, height = int(random.integers(1, WIDTH - left + 1)), int(random.integers(1, HEIGHT - top + 1))
        dispose, over = int(random.integers(0, 3)), bool(random.integers(0, 2))
        pixels, seen = drawn(height, width)
        chunks.append(control(order, left, top, width, height, dispose, int(over)))
        first = number == 0 and not hidden
        chunks.append((b"IDAT", stored(pixels)) if first else (b"fdAT", struct.pack(">I", order + 1) + stored(pixels)))
        order += 1 if first else 2
        before, place = canvas.copy(), canvas[top : top + height, left : left + width]
        laid = (seen[..., 3] > 0) | (not over)
        place[laid] = seen[laid]
        expected.append(canvas[..., :3] * (canvas[..., 3:] > 0))
        if dispose == 1:
            place[:] = 0
        elif dispose == 2:
            canvas = before
    path = tmp_path / "a.png"
    path.write_bytes(png(*chunks, (b"IEND", b"")))
    assert pictures_in(path) == (list(range(FRAMES)), int(hidden))
    for number, shown in enumerate(expected):
        np.testing.assert_array_equal(read_frame(path, number), shown)
    assert stored_size(path, FRAMES - 1) == (HEIGHT, WIDTH)


def test_half_transparent_frames(tmp_path: Path) -> None:
    below, above = (np.full((HEIGHT, WIDTH, 4), values, np.uint8) for values in ((200, 100, 0, 255), (0, 50, 250, 64)))
    chunks = [header(COLOUR_ALPHA), told(2), control(0, 0, 0, WIDTH, HEIGHT, 0, 0), (b"IDAT", packed(below))]
    chunks += [control(1, 0, 0, WIDTH, HEIGHT, 0, 1), (b"fdAT", struct.pack(">I", 2) + packed(above)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(png(*chunks))
    expected = (above[0, 0, :3] * 64.0 + below[0, 0, :3] * 191.0) / 255
    np.testing.assert_allclose(read_frame(tmp_path / "a.png", 1)[3, 4], expected, atol=1)


def with_default(path: Path, frames: list[np.ndarray]) -> Path:
    """As Pillow writes it, whose first picture is for programs that show no animation."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, default_image=True)
    return path


def test_the_default_image_is_left_out_and_counted(tmp_path: Path) -> None:
    levels = [250, 10, 60]
    with_default(tmp_path / "a.png", [np.full((8, 9, 3), level, np.uint8) for level in levels])
    catalogue = InputCatalogue(tmp_path, keep_names=True)
    assert list(catalogue.sources) == ["a_frame1", "a_frame2"]
    assert catalogue.left_out() == {"further picture of a file": 1}
    shown = [load_input(item["image"]) * 255 for item in catalogue.items()]
    assert [round(float(image.max())) for image in shown] == levels[1:]


def test_a_mask_of_one_frame_beside_a_default_image(tmp_path: Path) -> None:
    mask = np.zeros((8, 9), np.uint8)
    mask[2:4, 3:6] = 255
    path = with_default(tmp_path / "mask.png", [255 - mask, mask])
    np.testing.assert_array_equal(read_mask(path), mask > 0)


def test_frames_of_16_bits_have_one_white_which_the_default_image_does_not_set(tmp_path: Path) -> None:
    frames = [np.full((8, 9), value, np.uint16) for value in (60000, 100, 3000)]
    path = with_default(tmp_path / "a.png", frames)
    assert [int(read_frame(path, number)[0, 0, 0]) for number in (0, 1)] == [round(100 * 255 / 4095), 187]


def test_a_damaged_frame_of_16_bits_has_no_part_in_the_white(tmp_path: Path) -> None:
    pixels = [packed(np.full((HEIGHT, WIDTH), value, ">u2")) for value in (3000, 60000)]
    chunks = [header(GRAY, 16), told(2), control(0, 0, 0, WIDTH, HEIGHT, 0, 0), (b"IDAT", pixels[0])]
    for name, second, shown in (("a", pixels[1], 12), ("b", b"no pixels", 187)):  # of 65535, of the 4095 of the first
        last = [control(1, 0, 0, WIDTH, HEIGHT, 0, 0), (b"fdAT", struct.pack(">I", 2) + second), (b"IEND", b"")]
        (tmp_path / f"{name}.png").write_bytes(png(*chunks, *last))
        assert int(read_frame(tmp_path / f"{name}.png", 0)[0, 0, 0]) == shown
    with pytest.raises(UnreadableInputError, match=r"b\.png"):
        read_frame(tmp_path / "b.png", 1)


def test_colours_of_16_bits_are_refused(tmp_path: Path) -> None:
    pixels = packed(np.full((HEIGHT, WIDTH, 3), 40000, ">u2"))
    chunks = [header(COLOUR, 16), told(2), control(0, 0, 0, WIDTH, HEIGHT, 0, 0), (b"IDAT", pixels)]
    chunks += [control(1, 0, 0, WIDTH, HEIGHT, 0, 0), (b"fdAT", struct.pack(">I", 2) + pixels), (b"IEND", b"")]
    (tmp_path / "moving.png").write_bytes(png(*chunks))
    for number in (0, 1):
        with pytest.raises(UnreadableInputError, match="a moving PNG of 16 bits per sample"):
            read_frame(tmp_path / "moving.png", number)


def test_damaged_animations(tmp_path: Path) -> None:
    pixels, path = np.full((HEIGHT, WIDTH, 3), 90, np.uint8), tmp_path / "a.png"
    whole = control(0, 0, 0, WIDTH, HEIGHT, 0, 0)

    def written(frames: int, *chunks: tuple[bytes, bytes]) -> Path:
        parts = [header(COLOUR), told(frames), whole, (b"IDAT", packed(pixels)), *chunks, (b"IEND", b"")]
        path.write_bytes(png(*parts))
        return path

    written(3)
    assert pictures_in(path) == ([0, 1, 2], 0)
    np.testing.assert_array_equal(read_frame(path, 0), pixels)
    for missing in (1, 2):
        with pytest.raises(UnreadableInputError, match=rf"frame {missing + 1} of 3 is missing"):
            read_frame(path, missing)
    more = (control(1, 0, 0, WIDTH, HEIGHT, 0, 0), (b"fdAT", struct.pack(">I", 2) + packed(pixels // 2)))
    for number in (0, 1):  # more frames than it tells
        assert read_frame(written(1, *more), number).max() == (90, 45)[number]
    out_of_order = (control(2, 0, 0, WIDTH, HEIGHT, 0, 0), (b"fdAT", struct.pack(">I", 1) + packed(pixels)))
    with pytest.raises(UnreadableInputError, match="missing or out of order"):
        read_frame(written(2, *out_of_order))
    outside = (control(1, 1, 0, WIDTH, HEIGHT, 0, 0), (b"fdAT", struct.pack(">I", 2) + packed(pixels)))
    with pytest.raises(UnreadableInputError, match="outside its picture"):
        read_frame(written(2, *outside), 1)
    short = (control(1, 0, 0, WIDTH, HEIGHT, 0, 0), (b"fdAT", struct.pack(">I", 2) + packed(pixels[:3])))
    with pytest.raises(UnreadableInputError, match="pixels end before"):
        read_frame(written(2, *short), 1)
    with pytest.raises(UnreadableInputError, match="more than the allowed 10,000 frames"):
        pictures_in(written(2**31 - 1))
    late = (told(1), whole, (b"fdAT", struct.pack(">I", 1) + packed(pixels // 2)))
    path.write_bytes(png(header(COLOUR), (b"IDAT", packed(pixels)), *late, (b"IEND", b"")))  # no animation
    assert pictures_in(path) == ([0], 0)
    np.testing.assert_array_equal(read_frame(path), pixels)


@pytest.mark.parametrize(
    ("bits", "row", "gray"),
    [
        (2, b"\x1b", [0, 85, 170, 0]),
        (4, b"\x01\x23", [0, 17, 34, 0]),
        (16, b"\0\0\x4e\x20\x9c\x40\xea\x60", [0, 78, 156, 0]),
    ],
)
@pytest.mark.parametrize("moving", [False, True])
def test_gray_that_counts_as_transparent(moving: bool, bits: int, row: bytes, gray: list[int], tmp_path: Path) -> None:
    """The last of four samples is black, for it is transparent; the others keep their gray."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0))]
    chunks.append((b"tRNS", struct.pack(">H", 60000 if bits == 16 else 3)))
    chunks += [told(1), control(0, 0, 0, 4, 1, 0, 0)] * moving
    (tmp_path / "a.png").write_bytes(png(*chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")))
    assert read_frame(tmp_path / "a.png")[0, :, 0].tolist() == gray
