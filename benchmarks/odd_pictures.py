# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Valid but odd pictures, each with what is to be seen on it, for benchmarks/fuzz.py.

PNG, BMP and PNM are written here by their specifications, TIFF by tifffile, the rest by Pillow and OpenJPEG. What is
expected comes from the samples before they were written, never from a reader.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import openjpeg
import tifffile
from PIL import Image, ImageCms

__all__ = ["MAKERS", "OddPicture"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class OddPicture:
    """A file and what is to be read from it.

    Args:
        suffix: of the file's name.
        content: of the file.
        expected: each picture, (H, W, 3), 0 to 255.
        tolerance: by which values may differ; for lossy formats the mean difference.
        lossy: whether it is a lossy format.
        checked: whether the file carries a checksum of its pixels, so that damage cannot go unnoticed.
    """

    suffix: str
    content: bytes
    expected: list[Array]
    tolerance: float = 0.5001
    lossy: bool = False
    checked: bool = False


def _size(source: random.Random) -> tuple[int, int]:
    return source.choice((1, 2, 7, 8, 9, 31, 64)), source.choice((1, 3, 8, 15, 16, 33, 70))


def _samples(source: random.Random, channels: int, largest: int) -> Array:
    """(H, W, C): noise, or a ramp, up to a largest value that does occur."""
    random_numbers = np.random.default_rng(source.getrandbits(32))
    shape = (*_size(source), channels)
    samples = random_numbers.integers(0, largest + 1, shape)
    if source.random() < 0.5:
        samples = np.linspace(0, largest, samples.size).reshape(shape).astype(np.int64)
    samples.reshape(-1, channels)[0] = largest
    return samples


def _white(largest: int) -> int:
    return next(white for white in (255, 4095, 65535) if largest <= white)


def _seen(colours: Array, alpha: Array | None = None, white: int | None = None) -> Array:
    """What is to be seen of samples: their white is 255, on black where they are transparent."""
    shown = np.broadcast_to(colours * 255.0 / (white or _white(int(colours.max(initial=0)))), (*colours.shape[:2], 3))
    return shown if alpha is None else shown * alpha


# PNG (ISO/IEC 15948) ------------------------------------------------------------------------------------------------

_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_rows(samples: Array, depth: int, source: random.Random) -> bytes:
    rows = b""
    if not samples.size:
        return rows
    width = max(1, samples.shape[2] * depth // 8)
    above = None
    for row in samples:
        if depth == 16:
            line = np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
        elif depth == 8:
            line = row.astype(np.uint8).reshape(-1)
        else:
            bits = (row.reshape(-1, 1) >> np.arange(depth)[::-1]) & 1
            line = np.packbits(bits.reshape(-1).astype(np.uint8))
        above = np.zeros_like(line) if above is None else above
        left = np.concatenate([np.zeros(width, np.uint8), line])[: len(line)]
        corner = np.concatenate([np.zeros(width, np.uint8), above])[: len(line)]
        kind = source.randrange(5)
        a, b, c = (part.astype(np.int64) for part in (left, above, corner))
        near = np.abs(np.stack([b - c, a - c, a + b - 2 * c]))
        paeth = np.where((near[0] <= near[1]) & (near[0] <= near[2]), a, np.where(near[1] <= near[2], b, c))
        guess = [np.zeros_like(a), a, b, (a + b) // 2, paeth][kind]
        rows += bytes([kind]) + ((line - guess) % 256).astype(np.uint8).tobytes()
        above = line
    return rows


def make_png(source: random.Random) -> OddPicture:
    """All colour types and depths, interlaced or not, with transparency, EXIF orientation and profiles."""
    kinds = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # colour type: bits
    kind, depth = source.choice([(kind, depth) for kind, depths in kinds.items() for depth in depths])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    largest = (1 << depth) - 1 if depth < 16 else source.choice((200, 4095, 3000, 65535, 30000))
    samples = _samples(source, channels, largest)
    extra, interlaced = [], source.random() < 0.4
    if kind == 3:
        palette = np.random.default_rng(source.getrandbits(32)).integers(0, 256, (1 << depth, 3))
        extra.append(png_chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
        alpha = None
        if source.random() < 0.5:
            opacity = np.full(len(palette), 255)
            opacity[: len(palette) // 2] = np.arange(len(palette) // 2) * 7 % 256
            extra.append(png_chunk(b"tRNS", opacity[: len(palette) // 2].astype(np.uint8).tobytes()))
            alpha = opacity[samples[..., 0]][..., None] / 255
        expected = _seen(palette[samples[..., 0]], alpha, 255)
    elif kind in (4, 6):
        colours, alpha = samples[..., :-1], samples[..., -1:]
        if source.random() < 0.3 or depth == 16:
            alpha[:] = (1 << depth) - 1 if source.random() < 0.7 else 0
        expected = _seen(colours, alpha / ((1 << depth) - 1), None if depth == 16 else 255)
    else:
        alpha = None
        if source.random() < 0.3:
            hidden = samples[-1, -1]
            extra.append(png_chunk(b"tRNS", struct.pack(f">{channels}H", *hidden)))
            alpha = (samples != hidden).any(axis=2, keepdims=True)
        expected = _seen(samples, alpha, largest if depth < 8 else 255 if depth == 8 else None)
    before = []
    if source.random() < 0.3:
        before.append(png_chunk(b"gAMA", struct.pack(">I", 45455)))
    if source.random() < 0.3:
        before.append(png_chunk(b"pHYs", struct.pack(">IIB", 100, 200, 0)))
    if source.random() < 0.3:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        before.append(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)))
    if source.random() < 0.3:
        orientation = source.randrange(1, 9)
        exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, orientation, 0) + bytes(4)
        before.append(png_chunk(b"eXIf", exif))
        expected = _turned(expected, orientation)
    height, width, _ = samples.shape
    passes = _ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(_png_rows(samples[y::down, x::across], depth, source) for y, x, down, across in passes)
    packed = zlib.compress(rows, source.randrange(10))
    cuts = sorted(source.randrange(len(packed) + 1) for _ in range(source.randrange(3)))
    parts = [packed[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(packed)], strict=True)]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    chunks = [png_chunk(b"IHDR", header), *before, *extra, *(png_chunk(b"IDAT", part) for part in parts)]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")
    return OddPicture(".png", content, [expected], 1.01 if alpha is not None else 0.5001, checked=True)


def _turned(shown: Array, orientation: int) -> Array:
    """EXIF 2.3, 4.6.4 A, Orientation: rows and columns as they are to be seen."""
    shown = shown[:, ::-1] if orientation in (2, 3) else shown
    shown = shown[::-1] if orientation in (3, 4) else shown
    if orientation >= 5:
        shown = shown.transpose(1, 0, 2)
        shown = shown[:, ::-1] if orientation in (6, 7) else shown
        shown = shown[::-1] if orientation in (7, 8) else shown
    return shown


# TIFF 6.0 -----------------------------------------------------------------------------------------------------------


def make_tiff(source: random.Random) -> OddPicture:
    """Strips and tiles, both byte orders, planes, palettes, depths, orientations, pages, sub-directories."""
    pages = source.choice((1, 1, 1, 2, 3))
    channels = source.choice((1, 1, 3, 3, 4, "palette", "bilevel"))
    deep = channels in (1, 3, 4) and source.random() < 0.5
    largest = source.choice((200, 3000, 65535)) if deep else 255
    compression = source.choice((None, None, "zlib", "lzw", "packbits"))
    options: dict[str, Any] = {"metadata": None, "compression": compression}
    if compression in ("zlib", "lzw") and channels != "bilevel" and source.random() < 0.5:
        options["predictor"] = True
    if source.random() < 0.4 and channels != "bilevel":
        options["tile"] = (16, 16)
    else:
        options["rowsperstrip"] = source.choice((1, 3, 1000))
    orientation = source.choice((1, 1, 1, 3, 6, 8, 2, 5))
    options["extratags"] = [(274, "H", 1, orientation, True)] if orientation > 1 else []
    inverted = channels == 1 and source.random() < 0.3
    thumbnails = source.random() < 0.2
    whole, expected = [], []
    for _ in range(pages):
        if channels == "palette":
            samples = _samples(source, 1, 255)
            palette = np.random.default_rng(source.getrandbits(32)).integers(0, 256, (3, 256))
            options |= {"photometric": "palette", "colormap": (palette * 257).astype(np.uint16)}
            seen = _seen(palette.T[samples[..., 0]], white=255)
        elif channels == "bilevel":
            samples = _samples(source, 1, 1)
            options["photometric"] = "minisblack"
            seen = _seen(samples, white=1)
        else:
            samples = _samples(source, int(channels), largest)
            options["photometric"] = "miniswhite" if inverted else "minisblack" if channels == 1 else "rgb"
            if channels == 4:
                options["extrasamples"] = ["unassalpha"]
                samples[..., 3] = 65535 if deep else 255
            seen = samples[..., :3]
        whole.append((samples, dict(options)))
        expected.append(seen)
    if isinstance(channels, int):
        whites = [65535 if inverted else int(seen.max()) for seen in expected]
        white = _white(max(whites)) if deep else 255
        if inverted:
            full = 65535 if deep else 255
            expected = [full - seen for seen in expected]
            white = _white(max(int(seen.max()) for seen in expected)) if deep else 255
        expected = [_seen(seen, white=white) for seen in expected]
    planes = channels in (3, 4) and source.random() < 0.3
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=source.choice("<>"), bigtiff=source.random() < 0.3) as tiff:
        for samples, settings in whole:
            data = samples.astype(bool if channels == "bilevel" else np.uint16 if deep else np.uint8)
            data = data[..., 0] if data.shape[2] == 1 else np.moveaxis(data, 2, 0) if planes else data
            if planes:
                settings["planarconfig"] = "separate"
            tiff.write(data, **settings)
            if thumbnails:
                small = {key: value for key, value in settings.items() if key not in ("tile", "rowsperstrip")}
                tiff.write(data[..., ::2] if planes else data[:, ::2], **small, subfiletype=1)
    shown = [_turned(seen, orientation) for seen in expected]
    return OddPicture(source.choice((".tif", ".TIFF")), buffer.getvalue(), shown)


# The others ---------------------------------------------------------------------------------------------------------


def make_bmp(source: random.Random) -> OddPicture:
    """8, 24 and 32 bits, from below or from above, and two colours."""
    bits, upward = source.choice((1, 8, 24, 32)), source.random() < 0.5
    samples = _samples(source, 1 if bits <= 8 else 3, (1 << min(bits, 8)) - 1)
    palette = np.random.default_rng(source.getrandbits(32)).integers(0, 256, (1 << bits if bits <= 8 else 0, 3))
    rows = []
    for row in samples[::-1] if upward else samples:
        if bits == 1:
            line = np.packbits(row.reshape(-1).astype(np.uint8)).tobytes()
        else:
            line = (row[:, ::-1] if bits > 8 else row).astype(np.uint8)
            line = (np.pad(line, ((0, 0), (0, 1))) if bits == 32 else line).tobytes()
        rows.append(line + bytes(-len(line) % 4))
    colours = b"".join(bytes([*colour[::-1].tolist(), 0]) for colour in palette)
    height, width, _ = samples.shape
    offset, body = 54 + len(colours), b"".join(rows)
    info = struct.pack("<IiiHHIIiiII", 40, width, height if upward else -height, 1, bits, 0, len(body), 0, 0, 0, 0)
    content = struct.pack("<2sIHHI", b"BM", offset + len(body), 0, 0, offset) + info + colours + body
    return OddPicture(".bmp", content, [_seen(palette[samples[..., 0]] if bits <= 8 else samples, white=255)])


def make_pnm(source: random.Random) -> OddPicture:
    """Plain and raw PGM and PPM, with a largest value of their own; comments in the header."""
    channels, white = source.choice((1, 3)), source.choice((255, 255, 65535))
    samples = _samples(source, channels, white)
    plain = source.random() < 0.4 and white == 255
    magic = {(1, True): "P2", (3, True): "P3", (1, False): "P5", (3, False): "P6"}[channels, plain]
    head = f"{magic}\n# a comment\n{samples.shape[1]} {samples.shape[0]}\n{white}\n".encode()
    raw = samples.astype(">u2" if white > 255 else np.uint8).tobytes()
    body = " ".join(map(str, samples.reshape(-1))).encode() + b"\n" if plain else raw
    return OddPicture(".ppm" if channels == 3 else ".pgm", head + body, [_seen(samples, white=white)], 1.01)


def make_gif(source: random.Random) -> OddPicture:
    """One or more frames of few colours, each the whole picture; Pillow stores parts of them as it likes."""
    count, (height, width) = source.choice((1, 1, 2, 4)), _size(source)
    random_numbers = np.random.default_rng(source.getrandbits(32))
    colours = random_numbers.integers(0, 256, (8, 3)).astype(np.uint8)
    frames = [colours[random_numbers.integers(0, 8, (height, width))] for _ in range(count)]
    for number in range(1, count):  # Pillow joins equal frames
        frames[number][0, 0] = 255 - frames[number - 1][0, 0]
        if source.random() < 0.5:
            frames[number][height // 2 :] = frames[number - 1][height // 2 :]
            frames[number][0, 0] = 255 - frames[number - 1][0, 0]
    first, *others = (Image.fromarray(frame).quantize(256, method=Image.Quantize.FASTOCTREE) for frame in frames)
    exact = [np.asarray(image.convert("RGB")).astype(float) for image in (first, *others)]
    buffer = io.BytesIO()
    settings = {"save_all": True, "append_images": others, "duration": 50, "disposal": source.choice((0, 1, 2))}
    first.save(buffer, "GIF", interlace=source.randrange(2), **(settings if others else {}))
    return OddPicture(".gif", buffer.getvalue(), exact)


def make_webp(source: random.Random) -> OddPicture:
    """Lossless, with and without transparency, moving or not."""
    count, alpha = source.choice((1, 1, 3)), source.random() < 0.4
    first = _samples(source, 4 if alpha else 3, 255).astype(np.uint8)
    frames = [first]
    for number in range(1, count):
        frames.append(np.roll(first, number * 5 + 1, axis=1) ^ np.uint8(number))
    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    settings = {"save_all": True, "append_images": images[1:], "duration": 50} if count > 1 else {}
    images[0].save(buffer, "WEBP", lossless=True, exact=True, **settings)
    seen = [_seen(frame[..., :3], frame[..., 3:] / 255 if alpha else None, 255) for frame in frames]
    if count > 1 and alpha:  # frames are laid over each other
        return make_webp(source)
    return OddPicture(".webp", buffer.getvalue(), seen, 1.01 if alpha else 0.5001)


def make_jpeg(source: random.Random) -> OddPicture:
    """Gray, colour and CMYK, progressive or not, any sampling, EXIF orientations, restart markers."""
    height, width = _size(source)
    row, column = np.mgrid[:height, :width]
    channels = source.choice((1, 3, 4))
    slopes = [source.uniform(0.2, 1.5) for _ in range(2 * channels)]
    planes = [slopes[2 * i] * row + slopes[2 * i + 1] * column + 20 * i for i in range(channels)]
    samples = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    image = Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())
    options: dict[str, Any] = {"quality": 98, "progressive": source.random() < 0.4, "optimize": source.random() < 0.3}
    if channels == 3:
        options["subsampling"] = source.randrange(3)
    if source.random() < 0.3:
        options["restart_marker_blocks"] = source.choice((1, 2, 5))
    seen = _seen(samples, white=255) if channels < 4 else (255.0 - samples[..., :3]) * (255 - samples[..., 3:]) / 255
    if source.random() < 0.4:
        exif, orientation = Image.Exif(), source.randrange(1, 9)
        exif[274] = orientation
        options["exif"], seen = exif, _turned(seen, orientation)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return OddPicture(source.choice((".jpg", ".JPE", ".jfif")), buffer.getvalue(), [seen], 4, lossy=True)


def make_jpeg_2000(source: random.Random) -> OddPicture:
    """Lossless gray and colour of 8 to 16 bits, in a file or as a bare codestream."""
    bits, channels = source.choice((8, 8, 10, 12, 14, 16)), source.choice((1, 3))
    random_numbers = np.random.default_rng(source.getrandbits(32))
    shape = (source.choice((64, 70)), source.choice((65, 96)), channels)
    samples = random_numbers.integers(0, 1 << bits, shape).astype(np.uint8 if bits == 8 else np.uint16)
    samples[0, 0] = (1 << bits) - 1
    data = openjpeg.encode(
        np.ascontiguousarray(samples.squeeze()), bits_stored=bits, photometric_interpretation=2 if channels == 1 else 1,
        use_mct=False, codec_format=(bare := source.randrange(2)),
    )  # fmt: skip
    return OddPicture(".jp2" if bare else ".j2k", data, [_seen(samples, white=(1 << bits) - 1)])


MAKERS: tuple[Callable[[random.Random], OddPicture], ...] = (
    *(make_png, make_png, make_tiff, make_tiff, make_bmp, make_pnm, make_gif, make_webp, make_jpeg, make_jpeg_2000),
)
