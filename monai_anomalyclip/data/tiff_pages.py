# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The pages of TIFF files: find them, and refuse those that are incomplete."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from math import ceil
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from monai_anomalyclip.data.deep_colour import MAX_GRAY, colours, deep_colour, opened
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = [
    "MAX_PAGES",
    "check_complete",
    "check_size",
    "check_types",
    "deepest_sample",
    "picture_pages",
    "tiff_pages",
    "white_is_zero",
]

MAX_PAGES = 10_000
"""TIFF files of more pages are refused."""

# Its warnings and errors quote names and texts of the file, such as names of patients; what matters is also raised.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

# Byte order, then per kind: formats of an offset and of the number of entries, bytes per entry, where the first offset
# is (TIFF 6.0 section 2; BigTIFF design of the libtiff project).
_ORDER = {b"II": "<", b"MM": ">"}
_KINDS = {42: ("I", "H", 12, 4), 43: ("Q", "Q", 20, 8)}
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _PHOTOMETRIC = 254, 255, 262
_REDUCED_OR_MASK, _REDUCED, _MASK = 0b101, 2, 4  # values of these tags
_MAX_TAGS = 4096  # of a page; they are sorted, and those above come first
_GRAY_PHOTOMETRIC = (0, 1)  # WhiteIsZero, BlackIsZero
_SEPARATE = 2  # planar configuration: one plane after the other
_PLANAR = (1, _SEPARATE)
# Sizes, kind and places of pixels, and the types such a tag can have for libtiff: whole numbers of 8 to 64 bits.
_PIXEL_TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 322, 323, 324, 325)
_WRONG = -1  # where a tag of another type is noted
_PIXEL_TYPES = (1, 3, 4, 6, 8, 9, 16, 17)


def tiff_pages(stream: BinaryIO) -> Iterator[int]:
    """Where the directories of a TIFF's pages begin, in order; nothing for a file of another kind.

    No page is decoded, so one that cannot be read is no obstacle to the others. A directory that was visited before
    ends the list, as in Pillow.

    Raises:
        UnreadableInputError: the file ends within a directory, or has more than 10 000.
    """
    return (offset for offset, _ in _directories(stream))


def check_types(stream: BinaryIO, page: int) -> None:
    """Refuse a page with a tag for its pixels whose type libtiff does not take: it would leave a black picture.

    Raises:
        UnreadableInputError: the page is of that kind.
    """
    for _, tags in islice(_directories(stream), page, page + 1):
        if wrong := tags.get(_WRONG):
            raise UnreadableInputError(f"the file is damaged: its tag {wrong} is of a type that cannot be.")


def picture_pages(stream: BinaryIO) -> tuple[list[int], int]:
    """Numbers of a TIFF's pages that are pictures of their own, and how many pages it has.

    Pages of reduced size (thumbnails, levels of a pyramid) and transparency masks are none, by what the file says of
    them (tags 254, 255 and 262); where it says so of every page, all are taken for pictures.

    Raises:
        UnreadableInputError: as for :func:`tiff_pages`.
    """
    beside = [_is_beside(tags) for _, tags in _directories(stream)]
    return [number for number, other in enumerate(beside) if not other or all(beside)], len(beside)


def _is_beside(tags: Mapping[int, int]) -> bool:
    return (
        bool(tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK)
        or tags.get(_SUBFILE_TYPE) == _REDUCED
        or tags.get(_PHOTOMETRIC) == _MASK
    )


def _directories(stream: BinaryIO) -> Iterator[tuple[int, dict[int, int]]]:
    """Where each page's directory begins, those of its tags that tell what kind of page it is, and a damaged one."""
    magic = stream.read(4)
    order = _ORDER.get(magic[:2])
    kind = _KINDS.get(struct.unpack(order + "H", magic[2:])[0]) if order and len(magic) == 4 else None
    if order is None or kind is None:
        return
    offset_format, count_format, entry, first = kind

    def number(position: int, form: str) -> int:
        stream.seek(position)
        block = stream.read(struct.calcsize(form))
        if len(block) < struct.calcsize(form):
            raise UnreadableInputError(f"the file is truncated: it has no byte {position}, where a page is described.")
        return int(struct.unpack(order + form, block)[0])

    seen: set[int] = set()
    offset = number(first, offset_format)
    while offset and offset not in seen:
        if len(seen) == MAX_PAGES:
            raise UnreadableInputError(f"it has more than the allowed {MAX_PAGES:,} pages.")
        entries = number(offset, count_format)
        seen.add(offset)
        start = offset + struct.calcsize(count_format)
        block = stream.read(min(entries, _MAX_TAGS) * entry)
        tags = {}
        for at in range(0, len(block) - entry + 1, entry):
            tag, form = struct.unpack_from(order + "HH", block, at)
            if tag in _PIXEL_TAGS and form not in _PIXEL_TYPES:
                tags[_WRONG] = tag
            if tag in (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _PHOTOMETRIC) and form in (3, 4):  # 16 or 32 bits
                tags[tag] = struct.unpack_from(
                    order + {3: "H", 4: "I"}[form], block, at + 4 + struct.calcsize(offset_format)
                )[0]
        yield offset, tags
        offset = number(start + entries * entry, offset_format)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of too many pixels before it is decoded.

    Raises:
        UnreadableInputError: it has more than `max_pixels`.
    """
    if width * height > max_pixels:
        raise UnreadableInputError(f"{width} x {height} pixels are more than the allowed {max_pixels:,}.")


def check_complete(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse what Pillow would read in part: the first sample alone, or black in place of strips that are missing.

    Raises:
        UnreadableInputError: the page is of that kind.
    """
    tags = image.tag_v2
    samples = tags.get(277, 1)
    if tags.get(284, 1) not in _PLANAR:
        raise UnreadableInputError(f"the file is damaged: {tags[284]} is no arrangement of planes.")
    if tags.get(262) in _GRAY_PHOTOMETRIC and samples >= 3:
        raise UnreadableInputError(
            "a TIFF of several samples tagged as gray needs samples of 8 or 16 bits without sign: save it as RGB."
        )
    if 324 in tags:  # tiles
        needed, stored = ceil(tags[256] / tags[322]) * ceil(tags[257] / tags[323]), len(tags[324])
    else:
        needed, stored = ceil(tags[257] / min(tags.get(278, tags[257]), tags[257])), len(tags[273])
    if tags.get(284) == _SEPARATE:
        needed *= samples
    if stored < needed:
        raise UnreadableInputError(f"the file is damaged: it holds {stored} of {needed} parts.")


def white_is_zero(image: Image.Image) -> bool:
    """Whether a decoded picture still has to be inverted: Pillow does so on its own with 8 bits, not with 16."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0 and "I;16" in image.mode


def deepest_sample(path: str | os.PathLike[str], max_pixels: int) -> int:
    """The largest brightness among all pages of a TIFF of more than 8 bits; 0 for other files.

    A file of a single page gives 0, too.

    Pages that cannot be reached or read count for nothing. One page is in memory at a time; the answer is kept, so that
    a page after the other can be read without going through all of them again.

    Args:
        path: the file.
        max_pixels: pages of more pixels are not decoded.
    """
    status = os.stat(path)
    return _deepest_sample(os.fspath(path), max_pixels, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _deepest_sample(path: str, max_pixels: int, *_state: int) -> int:
    deepest = 0
    beside: list[bool] = []
    # Pages before a break, or up to the bound, can be read: what lies behind is no reason to refuse them.
    with open(path, "rb") as stream, contextlib.suppress(UnreadableInputError):
        for _, tags in _directories(stream):
            beside.append(_is_beside(tags))
    numbers = [number for number, other in enumerate(beside) if not other or all(beside)]
    if len(numbers) <= 1:
        return deepest
    with contextlib.suppress(UnidentifiedImageError), opened(path, ["TIFF"]) as image:
        for number in numbers:
            with contextlib.suppress(Exception):  # reading that page says why
                image.seek(number)
                check_size(image.width, image.height, max_pixels)
                if isinstance(image, TiffImagePlugin.TiffImageFile):
                    check_complete(image)
                if (samples := deep_colour(image, path, number)) is not None:
                    deepest = max(deepest, int(colours(samples, image.mode).max()))
                if not image.mode.startswith("I"):
                    continue
                values = np.asarray(image)
                low, high = int(values.min()), int(values.max())
                if white_is_zero(image):
                    low, high = MAX_GRAY - high, MAX_GRAY - low
                if low >= 0 and high <= MAX_GRAY:
                    deepest = max(deepest, high)
    return deepest
