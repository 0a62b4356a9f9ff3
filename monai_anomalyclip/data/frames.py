# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read pictures (PNG, JPEG, JPEG 2000, TIFF, BMP, GIF, WebP, PNM) as upright RGB, whatever way they were stored."""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import GifImagePlugin, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from monai_anomalyclip.data.checksums import check_deflated_parts, check_jpeg, check_jpeg_parts, check_png, decode_jpeg
from monai_anomalyclip.data.deep_colour import MAX_GRAY, deep_colour, deep_jpeg_2000, eight_bits, opened, scaled
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.png import MovingPng, moving_png, scale_hidden_gray
from monai_anomalyclip.data.tiff_pages import (
    MAX_PAGES,
    check_complete,
    check_size,
    check_types,
    deepest_sample,
    joined_jpegs,
    misread_by_pillow,
    page_by_tifffile,
    picture_pages,
    size_by_tifffile,
    tiff_pages,
    white_is_zero,
)

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

__all__ = [
    "load_frame",
    "open_picture",
    "pictures_in",
    "read_frame",
    "stored_size",
    "to_rgb",
]

MAX_PIXELS = 89_478_485
"""Pictures of more pixels are refused (Pillow's own bound: 256 MiB of RGB)."""

# At the level DEBUG Pillow logs the text of TIFF and PNG files, such as names of patients.
logging.getLogger("PIL").setLevel(logging.INFO)

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
_COMPLAINT = "The decoder complained of damage in the file: what is seen may not be what was stored."
_PNM_HEADER = 4096  # more than a header with its comments takes
_MANY = "it has {} frames; save the one you mean as its own file."
_MOVING = ("GIF", "WEBP")


def read_frame(
    path: str | os.PathLike[str], page: int | None = 0, *, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Read a picture as (H, W, 3) uint8 RGB.

    The EXIF rotation is applied; palettes are looked up; CMYK and YCbCr are converted (without colour profiles). Alpha
    is dropped when the picture is opaque, otherwise it is composited on black, so that colours hidden under transparent
    pixels do not appear. Gray and colours of more than 8 bits are scaled by 255, 4095 or 65535, the smallest that holds
    the maximum of all pages or frames of the file: 12-bit exports in a 16-bit file would otherwise come out nearly
    black, and pages of their own scale would not compare. Where a file of 9 to 15 bits says so, their largest number
    counts (JPEG 2000, TIFF of 10 and 14 bits). TIFF with three samples tagged as gray (CVC-ClinicDB) is read as RGB.

    Args:
        path: the file.
        page: which page of a TIFF or frame of a moving GIF, PNG or WebP, from 0 (see :func:`pictures_in`); every other
            file has page 0 alone. None refuses files of several pictures.
        max_pixels: pictures of more pixels are refused before they are decoded.

    Raises:
        UnreadableInputError: the file is missing, truncated, damaged, too large, without such a page, of floating point
            or signed values, or no picture.
    """
    return _read(path, page, max_pixels)[0]


def _read(path: str | os.PathLike[str], page: int | None, max_pixels: int) -> tuple[npt.NDArray[np.uint8], str]:
    """The picture, and a sentence if its decoder complained."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        picture = open_picture(path, page, max_pixels=max_pixels)
        with _named_errors(path, max_pixels):
            largest = _deepest(path, max_pixels) if picture.mode.startswith("I") else 0
        shown = to_rgb(picture, Path(path).name, largest)
    return shown, _COMPLAINT if complaints else ""


def pictures_in(path: str | os.PathLike[str]) -> tuple[list[int], int]:
    """Numbers of the pages of a TIFF, or of the frames of a moving GIF, PNG or WebP, that are pictures of their own.

    Thumbnails, levels of a pyramid and transparency masks of a TIFF are none, nor are further pictures in a JPEG (the
    other eye of a stereo camera, previews), those behind the first in a PNM file, nor the default image of a moving PNG
    that is not its first frame.

    Returns:
        the numbers, from 0, for `page` of :func:`read_frame`; and how many pictures of the file are left out.

    Raises:
        UnreadableInputError: the file is missing, its pages cannot be followed, or it has more than 10 000.
    """
    with _named_errors(path, MAX_PIXELS):
        with open(path, "rb") as stream:
            pages, count = picture_pages(stream)
        if count:
            return pages, count - len(pages)
        if (moving := moving_png(path)) is not None:
            _check_count(moving.count)
            return list(range(moving.count)), int(moving.hidden)
        with opened(path, _FORMATS) as image:
            count = getattr(image, "n_frames", 1)
            _check_count(count)
            if image.format == "PPM":
                return [0], _further_pnm(path)
            return ([0], count - 1) if image.format not in _MOVING else (list(range(count)), 0)


def _further_pnm(path: str | os.PathLike[str]) -> int:
    """How many pictures follow the first in a PNM file, which may be several one behind the other."""
    pictures, start = 0, 0
    with open(path, "rb") as stream:
        while pictures <= MAX_PAGES and stream.seek(start) == start and (head := stream.read(_PNM_HEADER))[:1] == b"P":
            try:
                image = Image.open(io.BytesIO(head), formats=("PPM",))
            except (OSError, ValueError):  # other data
                break
            pictures += 1
            codec, _, offset, form = image.tile[0]
            if codec == "ppm_plain":  # as text: one alone
                break
            deep = form[-1] > 255 if isinstance(form, tuple) else "16" in str(form)
            bits = 1 if image.mode == "1" else 8 * len(image.getbands()) * (1 + deep)
            start += offset + -(-image.width * bits // 8) * image.height
    return max(pictures - 1, 0)


def stored_size(path: str | os.PathLike[str], page: int = 0) -> tuple[int, int]:
    """Rows and columns of a picture as they are stored, from its header alone.

    Args:
        path: the file.
        page: which page of a TIFF, from 0.

    Raises:
        UnreadableInputError: the file is missing, or its header cannot be read.
    """
    with _named_errors(path, MAX_PIXELS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading it takes note of them
        try:
            with opened(path, _FORMATS) as picture:
                picture.seek(page if picture.format != "PNG" else 0)  # whose frames are of one size
                return picture.height, picture.width
        except Exception:
            size = size_by_tifffile(path, page)
            if size is None:
                raise
            return size


def open_picture(path: str | os.PathLike[str], page: int | None = None, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open and decode a picture and turn it upright, in the mode it was stored in.

    Args:
        path: the file.
        page: which page of a TIFF or frame of a moving picture, from 0; None refuses files of several pictures.
        max_pixels: pictures of more pixels are refused before they are decoded.

    Raises:
        UnreadableInputError: as for :func:`read_frame`.
    """
    with _named_errors(path, max_pixels):
        with open(path, "rb") as stream:
            if page is None:
                numbers, pages = picture_pages(stream)
            else:  # those before a break can be read
                pages = sum(1 for _ in islice(tiff_pages(stream), max(page, 0) + 1))
            stream.seek(0)
            check_png(stream)
        if (moving := moving_png(path)) is not None:
            return _of_moving(moving, page, max_pixels)
        if page is None and pages:
            if len(numbers) > 1:
                raise UnreadableInputError(f"it is a TIFF of {pages} pages; save the one you mean as its own file.")
            page = numbers[0]
        if pages:
            with open(path, "rb") as stream:
                check_types(stream, _checked(page or 0, pages))
        if pages and misread_by_pillow(path, _checked(page or 0, pages)):
            return page_by_tifffile(path, page or 0, max_pixels)
        try:
            return _by_pillow(path, page, pages, max_pixels)
        except (UnidentifiedImageError, SyntaxError, struct.error):  # a kind of TIFF that Pillow does not know
            if not pages:
                raise
            return page_by_tifffile(path, page or 0, max_pixels)


def _of_moving(moving: MovingPng, page: int | None, max_pixels: int) -> Image.Image:
    if page is None and moving.count > 1:
        raise UnreadableInputError(_MANY.format(moving.count))
    check_size(moving.width, moving.height, max_pixels)
    upright = ImageOps.exif_transpose(moving.picture(_checked(page or 0, moving.count)))
    upright.format = "PNG"
    return upright


def _by_pillow(path: str | os.PathLike[str], page: int | None, pages: int, max_pixels: int) -> Image.Image:
    with opened(path, _FORMATS) as image:
        if not pages:
            frames = getattr(image, "n_frames", 1) if page != 0 and image.format in _MOVING else 1
            if page is None and frames > 1:
                raise UnreadableInputError(_MANY.format(frames))
            _checked(page or 0, frames)
        _seek(image, page or 0)
        check_size(image.width, image.height, max_pixels)
        as_stored = False
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            check_complete(image)
            as_stored = image.tag_v2.get(274, 1) == 1 == image.tag_v2.get(284, 1)  # neither turned nor in planes
            with open(path, "rb") as stream:
                check_deflated_parts(image, stream)
        samples = deep_colour(image, path, page or 0)
        decoded = _decoded(image, path, page or 0)  # also where the samples are known: this finds damage
        if image.format in ("JPEG", "MPO"):
            check_jpeg(Path(path).read_bytes(), image, decode_jpeg)
        elif isinstance(image, TiffImagePlugin.TiffImageFile):
            with open(path, "rb") as stream:
                check_jpeg_parts(image, stream, image if as_stored and decoded is image else None)
        if samples is not None:
            decoded = eight_bits(samples, image.mode, deepest_sample(path, max_pixels))
        if decoded is not image and image.format != "TIFF":  # which is upright already
            decoded.info["exif"] = image.getexif().tobytes()
        ImageOps.exif_transpose(decoded, in_place=True)
        decoded.format = image.format
        if white_is_zero(image):
            decoded = Image.fromarray(MAX_GRAY - np.asarray(decoded, dtype=np.uint16))
        return decoded


def _decoded(image: Image.Image, path: str | os.PathLike[str], page: int) -> Image.Image:
    """The picture with its pixels: Pillow's own, or another where Pillow cannot, or would not read all bits."""
    try:
        scale_hidden_gray(image)
        image.load()
    except Exception:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and (parts := joined_jpegs(path, page)) is not None:
            return parts
        raise
    return deep_jpeg_2000(image, path) or image


def _seek(image: Image.Image, page: int) -> None:
    if isinstance(image, GifImagePlugin.GifImageFile):
        for number in range(1, page + 1):
            image.disposal_method = 0  # each frame has its own; Pillow lets that of an earlier one go on
            image.seek(number)
    elif page:
        image.seek(page)


def _deepest(path: str | os.PathLike[str], max_pixels: int) -> int:
    """The largest brightness that counts for the white of all pictures of a file of more than 8 bits."""
    moving = moving_png(path)
    return deepest_sample(path, max_pixels) if moving is None else moving.largest()


def _check_count(frames: int) -> None:
    if frames > MAX_PAGES:
        raise UnreadableInputError(f"it has more than the allowed {MAX_PAGES:,} frames.")


def _checked(page: int, count: int) -> int:
    if not 0 <= page < count:
        raise UnreadableInputError(f"it has no page {page}, counted from 0.")
    return page


def to_rgb(picture: Image.Image, name: str, largest: int = 0) -> npt.NDArray[np.uint8]:
    """Convert an upright picture of any mode to (H, W, 3) uint8, by the rules of :func:`read_frame`.

    Args:
        picture: what :func:`open_picture` returned.
        name: the file's name, for the error.
        largest: largest value among the pictures that are to have the same white, when they hold more than 8 bits.

    Raises:
        UnreadableInputError: floating point or signed values, or a mode without a conversion to RGB.
    """
    if picture.mode == "F":
        raise UnreadableInputError(
            f"Cannot read {name!r}: floating point pixels have no defined white; save it as 8- or 16-bit first."
        )
    if picture.mode.startswith("I"):
        return _from_deep_gray(np.asarray(picture), name, largest)
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        if picture.mode == "La":  # the one mode that Pillow cannot convert in one step
            picture = picture.convert("LA")
        rgba = picture.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
        return np.asarray(rgba)[..., :3].copy()
    try:
        return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except ValueError as error:
        raise UnreadableInputError(
            f"Cannot read {name!r}: colours of the kind {picture.mode} are not supported; save it as RGB first."
        ) from error


def load_frame(path: str | os.PathLike[str], page: int | None = 0) -> MetaTensor:
    """Read a picture as MetaTensor (3, H, W) uint8 RGB in 0..255, affine the identity, meta ``kind`` = ``"frame"``.

    Args:
        path: the file.
        page: as for :func:`read_frame`.

    Raises:
        UnreadableInputError: as for :func:`read_frame`.
    """
    import torch
    from monai.data.meta_tensor import MetaTensor  # takes seconds, which headers alone do not need

    pixels, complaint = _read(path, page, MAX_PIXELS)
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)  # a view: all that draws wants it back
    meta = {
        "filename_or_obj": str(path),
        "kind": "frame",
        "notes": complaint,
        "spatial_shape": np.asarray(channels_first.shape[1:]),
        "original_affine": np.eye(4),
    }
    return MetaTensor(channels_first, affine=torch.eye(4, dtype=torch.float64), meta=meta)


@contextmanager
def _named_errors(path: str | os.PathLike[str], max_pixels: int) -> Iterator[None]:
    """Turn every error within the block into one sentence that names the file, never its folder."""
    name = Path(path).name
    if not Path(path).is_file():
        raise UnreadableInputError(f"Cannot read {name!r}: there is no such file.")
    try:
        yield
    except UnreadableInputError as error:
        raise UnreadableInputError(f"Cannot read {name!r}: {error}") from error
    except UnidentifiedImageError as error:
        message = f"Cannot read {name!r}: its content is not a picture of the kinds {', '.join(_FORMATS)}."
        raise UnreadableInputError(message) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableInputError(
            f"Cannot read {name!r}: it claims far more than the allowed {max_pixels:,} pixels."
        ) from error
    except PermissionError as error:
        raise UnreadableInputError(f"Cannot read {name!r}: you have no permission to read it.") from error
    except MemoryError as error:
        raise UnreadableInputError(f"Cannot read {name!r}: there is not enough memory for it.") from error
    except Exception as error:  # a damaged file makes decoders raise nearly anything (struct, zlib, Index, Syntax, ...)
        reason = str(error).replace(str(path), name) or type(error).__name__
        raise UnreadableInputError(f"Cannot read {name!r}: the file is truncated or damaged ({reason}).") from error


def _from_deep_gray(gray: npt.NDArray[Any], name: str, largest: int) -> npt.NDArray[np.uint8]:
    low, high = int(gray.min()), int(gray.max())
    if low < 0 or max(high, largest) > MAX_GRAY:
        raise UnreadableInputError(
            f"Cannot read {name!r}: gray values must lie in 0..65535, got {low}..{high}; rescale the picture first."
        )
    return np.repeat(scaled(gray, max(high, largest))[..., None], 3, axis=2)
