# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The pages of TIFF files: find them, refuse those that are incomplete, and read by tifffile what Pillow cannot.

Pillow fails, or reads a part, of gray of 16 bits that begins with white in a file of the other byte order, BigTIFF of
that order, colours tagged as gray, depths such as 10 and 14 bits, and JPEG whose sampling libtiff refuses.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from math import ceil, prod
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from monai_anomalyclip.data.deep_colour import MAX_GRAY, colours, deep_colour, eight_bits, opened, turned
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = [
    "MAX_PAGES",
    "check_complete",
    "check_size",
    "check_types",
    "deepest_sample",
    "joined_jpegs",
    "misread_by_pillow",
    "page_by_tifffile",
    "picture_pages",
    "size_by_tifffile",
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


# Its warnings and errors quote names and texts of the file, such as names of patients; what matters is also raised.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_ORIENTATION = 274
_SEPARATE = 2  # planar configuration: one plane after the other
_ASSOCIATED, _UNASSOCIATED = 1, 2  # what a further sample is: transparency, multiplied into the colours or not
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6  # photometric interpretation
_GRAY = (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
_JPEG = 7  # compression
# Start of image, and Adobe's marker without its last byte, which says whether colours are YCbCr.
_JPEG_START = b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


def misread_by_pillow(path: str | os.PathLike[str], number: int) -> bool:
    """Whether Pillow would open a page and err: three samples tagged as gray, or BigTIFF with high bytes first.

    Args:
        path: the file.
        number: of the page, from 0.
    """
    with contextlib.suppress(tifffile.TiffFileError), _page(path, number) as page:
        big_endian = page.parent.is_bigtiff and page.parent.byteorder == ">"
        return big_endian or (_is_tagged_gray(page) and page.dtype in (np.uint8, np.uint16))
    return False  # Pillow may still read it, or say what is wrong


def size_by_tifffile(path: str | os.PathLike[str], number: int) -> tuple[int, int] | None:
    """Rows and columns of a page, upright, from its header alone; None for a file that tifffile does not know.

    Args:
        path: the file.
        number: of the page, from 0.
    """
    with contextlib.suppress(tifffile.TiffFileError), _page(path, number) as page:
        size = int(page.imagelength), int(page.imagewidth)
        return size[::-1] if _orientation(page) > 4 else size
    return None


def page_by_tifffile(path: str | os.PathLike[str], number: int, max_pixels: int) -> Image.Image:
    """A page upright, as a picture of 8 bits; three samples that are tagged as gray are colours.

    Args:
        path: the file.
        number: of the page, from 0.
        max_pixels: pages of more pixels are refused before they are decoded.

    Raises:
        UnreadableInputError: the page is too large or incomplete, or its samples are of a kind without a meaning here.
    """
    with _page(path, number) as page:
        check_size(page.imagewidth, page.imagelength, max_pixels)
        if page.size > 4 * page.imagewidth * page.imagelength:
            raise UnreadableInputError(f"its page has the shape {page.shape}; save it as RGB first.")
        if len(page.dataoffsets) < (needed := prod(page.chunked)):
            raise UnreadableInputError(f"the file is damaged: it holds {len(page.dataoffsets)} of {needed} parts.")
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True) if count]
        if len(ends) < len(page.dataoffsets) or max(ends) > page.parent.filehandle.size:
            raise UnreadableInputError("the file is truncated or damaged: parts of the page are not in it.")
        samples, mode, declared = _samples(page)
        largest = 0 if declared else _largest(page.parent, max_pixels)
        picture = eight_bits(turned(samples, _orientation(page)), mode, largest, declared)
    picture.format = "TIFF"
    return picture


def _samples(page: Any) -> tuple[npt.NDArray[np.uint16], str, int | None]:
    """(H, W, C), Pillow's mode, and which value is white; None for 16 bits, which often are fewer."""
    bits, count, kind = int(page.bitspersample), int(page.samplesperpixel), int(page.photometric)
    if page.dtype not in (np.dtype(bool), np.uint8, np.uint16) or kind not in (*_GRAY, _RGB, _PALETTE) or count > 4:
        raise UnreadableInputError(
            f"it is a TIFF of {count} samples of {bits} bits ({page.photometric.name}, {page.dtype}); save it as gray "
            "or RGB of 8 or 16 bits first."
        )
    try:
        samples = np.asarray(page.asarray())
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise UnreadableInputError(
                f"its samples of {bits} bits ({page.compression.name}) need the package imagecodecs: install it, or "
                "save it as PNG or TIFF of 8 or 16 bits without compression."
            ) from error
        raise
    samples = np.moveaxis(samples, 0, -1) if count > 1 and page.planarconfig == _SEPARATE else samples
    samples = samples.reshape(*samples.shape[:2], -1)
    if kind == _PALETTE:
        return (page.colormap[:, samples[..., 0]] >> 8).transpose(1, 2, 0), "RGB", 255
    if _is_tagged_gray(page):
        samples = samples[..., :3]
    largest = 2**bits - 1
    samples = samples.astype(np.uint16)
    if kind == _WHITE_IS_ZERO:
        samples = np.uint16(largest) - samples
    colours = 1 if samples.shape[2] < 3 else 3
    alpha = [int(extra) for extra in page.extrasamples[:1]] if samples.shape[2] > colours else []
    if alpha and alpha[0] not in (_ASSOCIATED, _UNASSOCIATED):
        samples, alpha = samples[..., :colours], []
    mode = "L" if colours == 1 else "RGB"
    if alpha:
        mode = "LA" if colours == 1 else "RGBa" if alpha == [_ASSOCIATED] else "RGBA"
    return samples, mode, largest if bits != 16 else None


def _largest(tiff: Any, max_pixels: int) -> int:
    """The largest brightness among the pages of 16 bits: they are to have one white."""
    largest = 0
    for page in tiff.pages:
        with contextlib.suppress(Exception):  # reading that page says why
            check_size(page.imagewidth, page.imagelength, max_pixels)
            samples, mode, declared = _samples(page)
            if declared is None:
                largest = max(largest, int(samples[..., : 1 if mode[0] == "L" else 3].max()))
    return largest


def joined_jpegs(path: str | os.PathLike[str], number: int) -> Image.Image | None:
    """A colour page whose strips or tiles are JPEG, decoded one by one; None for every other page, and a damaged one.

    libtiff refuses pages whose sampling of colours is another than their directory says; some scanners write them.

    Args:
        path: the file.
        number: of the page, from 0.
    """
    with contextlib.suppress(Exception), _page(path, number) as page:  # why it cannot be read libtiff has said
        chunk = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        across = ceil(page.imagewidth / chunk[1])
        if page.compression != _JPEG or page.photometric not in (_RGB, _YCBCR) or page.samplesperpixel != 3:
            return None
        transform = bytes([page.photometric == _YCBCR])
        tables = page.jpegtables[2:-2] if page.jpegtables else b""
        joined = Image.new("RGB", (page.imagewidth, page.imagelength))
        for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            page.parent.filehandle.seek(offset)
            stream = _JPEG_START + transform + tables + page.parent.filehandle.read(size)[2:]
            with Image.open(io.BytesIO(stream), formats=["JPEG"]) as part:
                row, column = divmod(index, across)
                joined.paste(part.convert("RGB"), (column * chunk[1], row * chunk[0]))
        return Image.fromarray(np.ascontiguousarray(turned(np.asarray(joined), _orientation(page))))
    return None


def _is_tagged_gray(page: Any) -> bool:
    return page.photometric in _GRAY and page.samplesperpixel >= 3


def _orientation(page: Any) -> int:
    return int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else 1


@contextlib.contextmanager
def _page(path: str | os.PathLike[str], number: int) -> Iterator[Any]:
    with tifffile.TiffFile(path) as tiff:
        yield tiff.pages[number]
