# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pages of TIFF files that Pillow cannot open, or would read in part, by tifffile.

Gray of 16 bits that begins with white in a file of the other byte order, BigTIFF of that order, colours tagged as gray,
depths such as 10 and 14 bits, and JPEG whose sampling libtiff refuses.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from monai_anomalyclip.data.deep_colour import eight_bits, turned
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.tiff_pages import check_size

__all__ = ["joined_jpegs", "misread_by_pillow", "page_by_tifffile", "size_by_tifffile"]

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
