# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Colours of 16 bits per sample in PNG and TIFF files, of which Pillow by itself keeps the upper byte alone."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

__all__ = ["MAX_GRAY", "colours", "deep_colour", "eight_bits", "scaled", "white_of"]

MAX_GRAY = 65535
"""The largest value that a sample of a picture may have."""

_FIRST, _SECOND = ";16B", ";16L"  # Pillow's raw modes that take the first and the second byte of each sample
_SEPARATE = 2  # planar configuration: one plane after the other
_GRAY_AND_ALPHA = "LA;16B"


def deep_colour(image: Image.Image, path: str | os.PathLike[str], page: int = 0) -> npt.NDArray[np.uint16] | None:
    """The samples of a picture in colour, or in gray with transparency, that has 16 bits for each; else None.

    Args:
        image: what Pillow opened, at its page, not yet decoded.
        path: its file.
        page: which page of it, from 0.

    Returns:
        (H, W, C), with C as the mode of `image` has it, but 2 for gray with transparency, and 4 where one colour counts
        as transparent.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.mode.startswith(("RGB", "CMYK")) or not image.tile:
        return None
    raw = _raw_mode(image.tile[0])
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if set(image.tag_v2.get(258, ())) != {16}:
            return None
        if image.tag_v2.get(284) == _SEPARATE:  # Pillow takes each byte of those for a sample
            with tifffile.TiffFile(path) as tiff:
                planes = np.moveaxis(np.asarray(tiff.pages[page].asarray()), 0, -1)
            return planes[..., : len(image.getbands())].astype(np.uint16)
    elif not isinstance(image, PngImagePlugin.PngImageFile) or ";16" not in raw or image.is_animated:
        return None  # frames of a moving PNG are laid over each other by Pillow, in 8 bits
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


def colours(samples: npt.NDArray[np.uint16], mode: str) -> npt.NDArray[np.uint16]:
    """The samples of a picture of a mode without those of its transparency, see :func:`deep_colour`."""
    return samples[..., : 1 if samples.shape[2] == 2 else 4 if mode == "CMYK" else 3]


def eight_bits(samples: npt.NDArray[np.uint16], mode: str, largest: int) -> Image.Image:
    """A picture of 8 bits per sample. Transparency has a white of its own, for it is no brightness.

    Args:
        samples: (H, W, C), see :func:`deep_colour`.
        mode: Pillow's mode of the picture that they are from.
        largest: largest value among the pictures that are to have the same white.
    """
    brightness = colours(samples, mode)
    alpha = samples[..., brightness.shape[2] :]
    parts = [scaled(part, max(least, int(part.max(initial=0)))) for part, least in ((brightness, largest), (alpha, 0))]
    if alpha.shape[2] and mode != "RGBa":
        mode = "LA" if samples.shape[2] == 2 else "RGBA"
    pixels = np.concatenate(parts, axis=2)
    return Image.frombytes(mode, (samples.shape[1], samples.shape[0]), pixels.tobytes())


def white_of(largest: int) -> int:
    """What is white where the largest value is this one: the largest number of 8, 12 or 16 bits that holds it."""
    return next(white for white in (255, 4095, MAX_GRAY) if largest <= white)


def scaled(samples: npt.NDArray[Any], largest: int) -> npt.NDArray[np.uint8]:
    """Bring samples from 0 to the white of their largest value to 0..255."""
    white = white_of(largest)
    values = samples.astype(np.uint32)
    values *= 2 * 255
    values += white  # rounds; no value lies half-way
    values //= 2 * white
    return values.astype(np.uint8)


def _raw_mode(tile: Any) -> str:
    return tile[3] if isinstance(tile[3], str) else str(tile[3][0])


def _bytes(path: str | os.PathLike[str], page: int, raw: str) -> npt.NDArray[np.uint8]:
    """Decode with another raw mode, which tells Pillow which of the stored bytes to keep."""
    with Image.open(path, formats=["PNG", "TIFF"]) as image:
        if page:
            image.seek(page)
        image.tile = [
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
        ]
        image.load()
        return np.asarray(image)
