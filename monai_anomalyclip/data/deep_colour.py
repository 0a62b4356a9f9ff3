# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Samples of more than 8 bits in PNG, TIFF and JPEG 2000, of which Pillow by itself keeps the upper byte alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageFile, Jpeg2KImagePlugin, PngImagePlugin, TiffImagePlugin

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = [
    "MAX_GRAY",
    "colours",
    "deep_colour",
    "deep_jpeg_2000",
    "eight_bits",
    "opened",
    "scaled",
    "turned",
    "white_of",
]

MAX_GRAY = 65535
"""The largest value that a sample of a picture may have."""

_FIRST, _SECOND = ";16B", ";16L"  # Pillow's raw modes that take the first and the second byte of each sample
_SEPARATE = 2  # planar configuration: one plane after the other
_GRAY_AND_ALPHA = "LA;16B"
_JPEG_2000_COLOURS = ("sRGB", "monochrome", "unspecified")


def deep_colour(image: Image.Image, path: str | os.PathLike[str], page: int = 0) -> npt.NDArray[np.uint16] | None:
    """The samples of a picture in colour, or in gray with transparency, that has 16 bits for each; else None.

    Args:
        image: what Pillow opened, at its page, not yet decoded.
        path: its file.
        page: which page of it, from 0.

    Returns:
        (H, W, C), upright where it is a TIFF, with C as the mode of `image` has it, but 2 for gray with transparency,
        and 4 where one colour counts as transparent.
    """
    if isinstance(image, PngImagePlugin.PngImageFile) and image.mode == "I;16" and "transparency" in image.info:
        with opened(path, ["PNG"]) as other:
            other.seek(page)
            gray = np.asarray(other, dtype=np.uint16)
        return np.stack([gray, (gray != image.info["transparency"]) * np.uint16(MAX_GRAY)], axis=2)
    if not isinstance(image, ImageFile.ImageFile) or not image.mode.startswith(("RGB", "CMYK")) or not image.tile:
        return None
    raw = _raw_mode(image.tile[0])
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if set(image.tag_v2.get(258, ())) != {16}:
            return None
        if image.tag_v2.get(284) == _SEPARATE:  # Pillow takes each byte of those for a sample
            with tifffile.TiffFile(path) as tiff:
                planes = np.moveaxis(np.asarray(tiff.pages[page].asarray()), 0, -1)
            planes = planes[..., : len(image.getbands())].astype(np.uint16)
            return turned(planes, image.tag_v2.get(274, 1))
    elif not isinstance(image, PngImagePlugin.PngImageFile) or ";16" not in raw:
        return None
    if raw == _GRAY_AND_ALPHA:
        return _bytes(path, page, "RGBA").view(">u2").astype(np.uint16)
    kind = raw.partition(";")[0]
    first, second = (_bytes(path, page, kind + ending).astype(np.uint16) for ending in (_FIRST, _SECOND))
    big = raw.endswith("B") or (raw.endswith("N") and sys.byteorder == "big")
    high, low = (first, second) if big else (second, first)
    samples = high * np.uint16(256) + low
    if isinstance(hidden := image.info.get("transparency"), tuple):
        opaque = (samples != np.array(hidden, np.uint16)).any(axis=2, keepdims=True)
        samples = np.concatenate([samples, opaque * np.uint16(MAX_GRAY)], axis=2)
    return samples


def deep_jpeg_2000(image: Image.Image, path: str | os.PathLike[str]) -> Image.Image | None:
    """A JPEG 2000 picture of more than 8 bits per sample in 8 bits, with the white that it declares; else None.

    It declares a number of bits. 16 are often no more than a container for fewer, and then the rule of
    :func:`white_of` holds; Pillow reads gray of 16 bits by itself.

    Args:
        image: what Pillow opened, not yet decoded.
        path: its file.

    Raises:
        UnreadableInputError: its colours have signs, or are none of red, green and blue.
    """
    if not isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        return None
    from openjpeg.utils import decode, get_parameters  # slow to import

    told = get_parameters(path)
    bits = int(told["precision"])
    if bits <= 8 or (image.mode.startswith("I") and (bits >= 16 or told["is_signed"])):
        return None
    if bits > 16 or told["is_signed"] or told["colourspace"] not in _JPEG_2000_COLOURS:
        kind = f"{told['colourspace']}, {'signed' if told['is_signed'] else 'unsigned'}"
        raise UnreadableInputError(f"it is JPEG 2000 of {bits} bits ({kind}); save it as a PNG of 8 or 16 bits first.")
    samples = np.atleast_3d(decode(path)).astype(np.uint16)
    mode = "L" if image.mode.startswith("I") else image.mode
    return eight_bits(samples, mode, 0, (1 << bits) - 1 if bits < 16 else None)


def colours(samples: npt.NDArray[np.uint16], mode: str) -> npt.NDArray[np.uint16]:
    """The samples of a picture of a mode without those of its transparency, see :func:`deep_colour`."""
    return samples[..., : 1 if samples.shape[2] == 2 else 4 if mode == "CMYK" else 3]


def eight_bits(samples: npt.NDArray[np.uint16], mode: str, largest: int, declared: int | None = None) -> Image.Image:
    """A picture of 8 bits per sample. Transparency has a white of its own, for it is no brightness.

    Args:
        samples: (H, W, C), see :func:`deep_colour`.
        mode: Pillow's mode of the picture that they are from.
        largest: largest value among the pictures that are to have the same white.
        declared: white, and wholly opaque, where the file itself says which value that is.
    """
    brightness = colours(samples, mode)
    alpha = samples[..., brightness.shape[2] :]
    parts = [
        _brought_to(part, declared or white_of(max(least, int(part.max(initial=0)))))
        for part, least in ((brightness, largest), (alpha, 0))
    ]
    if alpha.shape[2] and mode != "RGBa":
        mode = "LA" if samples.shape[2] == 2 else "RGBA"
    pixels = np.concatenate(parts, axis=2)
    return Image.frombytes(mode, (samples.shape[1], samples.shape[0]), pixels.tobytes())


def white_of(largest: int) -> int:
    """What is white where the largest value is this one: the largest number of 8, 12 or 16 bits that holds it."""
    return next(white for white in (255, 4095, MAX_GRAY) if largest <= white)


def scaled(samples: npt.NDArray[Any], largest: int) -> npt.NDArray[np.uint8]:
    """Bring samples from 0 to the white of their largest value to 0..255."""
    return _brought_to(samples, white_of(largest))


def _brought_to(samples: npt.NDArray[Any], white: int) -> npt.NDArray[np.uint8]:
    values = np.minimum(samples, white).astype(np.uint32)
    values *= 2 * 255
    values += white  # rounds; no value lies half-way
    values //= 2 * white
    return np.asarray(values, dtype=np.uint8)


@contextmanager
def opened(path: str | os.PathLike[str], formats: Sequence[str]) -> Iterator[ImageFile.ImageFile]:
    """What Pillow opens. It gets no name: files with a name it maps into memory, and then takes rows for columns.

    That concerns uncompressed TIFF files whose orientation exchanges the two.
    """
    with open(path, "rb") as stream, Image.open(stream, formats=tuple(formats)) as image:
        yield image


def turned(samples: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Samples (H, W, C) as they are to be seen, by tag 274 of a TIFF or of EXIF; any other number than 2 to 8 is 1."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples[:, ::-1] if orientation in (2, 3, 6, 7) else samples


def _raw_mode(tile: Any) -> str:
    return tile[3] if isinstance(tile[3], str) else str(tile[3][0])


def _bytes(path: str | os.PathLike[str], page: int, raw: str) -> npt.NDArray[np.uint8]:
    """Decode with another raw mode, which tells Pillow which of the stored bytes to keep."""
    with opened(path, ["PNG", "TIFF"]) as image:
        if page:
            image.seek(page)
        image.tile = [
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
        ]
        image.load()
        return np.asarray(image)
