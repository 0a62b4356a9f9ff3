# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a result: the anomaly map over the input, the mask's outline, a colour bar of fixed range."""

from __future__ import annotations

import functools
import io
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from isal import isal_zlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = [
    "Drawn",
    "Picture",
    "framed",
    "gray_png",
    "jpeg",
    "limits_of",
    "overlay",
    "panels",
    "side_by_side",
    "thumbnail",
    "whole_levels",
    "with_square_pixels",
]

Picture = npt.NDArray[np.uint8]
Drawn = Picture | Image.Image
"""What can be encoded: an array (H, W, 3), or Pillow's picture, which is not copied for that."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_OUTLINE = (0, 255, 255)  # cyan: the one hue the colour map does not hold
PAPER, INK = (18, 18, 18), (230, 230, 230)
CLEAR = 0.35  # of the ceiling of distances: at its half begins what 1 % of the normals' pixels reach
_NOTICE = "research use only"
_MIN_WIDTH = 260  # smaller pictures are enlarged by a whole factor, so that the margin's text fits
_LARGE = 1200  # columns of two panels whose outlines are two pixels wide


def overlay(
    image: Picture,
    anomaly_map: npt.NDArray[np.floating],
    mask: npt.NDArray[np.uint8] | None,
    alpha: float = 0.5,
    ceiling: float = 1.0,
    clear: float | None = None,
) -> Picture:
    """Lay a map over a picture.

    The colours (matplotlib's inferno) stand for fixed values, 0 to `ceiling`, never for a picture's own minimum and
    maximum. Opacity rises with the map from none at 0 to `alpha` at half of it and above, so that normal tissue stays
    as it is.

    Args:
        image: (H, W, 3) uint8.
        anomaly_map: (H, W) in [0, 1].
        mask: (H, W), non-zero where anomalous, drawn as a cyan outline; None for no outline.
        alpha: greatest opacity, in [0, 1].
        ceiling: what the last colour stands for; distances to normals take up a small part of [0, 1].
        clear: share of `ceiling` up to which nothing is laid over; by default none, or with a ceiling below 1 that
            where the distances of most normal patches lie.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the sizes differ, or the map is not in [0, 1].
    """
    _check(image, anomaly_map, mask)
    drawn = Image.fromarray(image)
    _lay(drawn, (0, 0), anomaly_map, mask, ceiling, clear, alpha)
    return np.array(drawn)


def side_by_side(
    image: Picture,
    anomaly_map: npt.NDArray[np.floating],
    mask: npt.NDArray[np.uint8] | None,
    caption: str = "",
    margin: bool = True,
    truth: npt.NDArray[np.uint8] | None = None,
    *,
    ceiling: float = 1.0,
    beside: npt.NDArray[np.floating] | None = None,
) -> Picture:
    """Put a frame (H, W, 3) beside its overlay, with a colour bar and a line of text below.

    The panels have the frame's resolution; frames of less than about 130 columns are enlarged by a whole factor.

    Args:
        image: (H, W, 3) uint8.
        anomaly_map: (H, W) in [0, 1].
        mask: (H, W), or None.
        caption: text for the margin.
        margin: whether there is one; without it the panels stand alone, for a page that explains them itself.
        truth: (H, W), the mask as it should be, outlined on the frame in a third panel; None for no such panel.
        ceiling: as for :func:`overlay`.
        beside: (H, W) in [0, 1], distances to normals over their ceiling, whose overlay is one more panel.

    Raises:
        ValueError: as for :func:`overlay`.
    """
    shown = caption if margin else None
    return np.asarray(panels(image, anomaly_map, mask, truth, ceiling=ceiling, beside=beside, caption=shown)[0])


def panels(
    image: Picture,
    anomaly_map: npt.NDArray[np.floating],
    mask: npt.NDArray[np.uint8] | None,
    truth: npt.NDArray[np.uint8] | None = None,
    *,
    ceiling: float = 1.0,
    beside: npt.NDArray[np.floating] | None = None,
    caption: str | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """:func:`side_by_side` as Pillow's picture: drawn in place, since copies take most of the time.

    Args:
        image: as for :func:`side_by_side`, and so are the others.
        anomaly_map: in [0, 1].
        mask: to outline.
        truth: to outline on the frame.
        ceiling: of the colours.
        beside: another map.
        caption: text for the margin; None for no margin.

    Returns:
        The picture, and width and height of the panels at its upper left.

    Raises:
        ValueError: as for :func:`overlay`.
    """
    laid: list[tuple[npt.NDArray[np.floating] | None, npt.NDArray[np.uint8] | None, float, float | None]]
    laid = [(None, None, 1.0, None), (anomaly_map, mask, ceiling, None)]
    laid += [] if beside is None else [(beside, None, 1.0, CLEAR)]
    laid += [] if truth is None else [(None, truth, 1.0, None)]
    for heat, outlined, *_ in laid:
        _check(image, heat, outlined)
    height, width = image.shape[:2]
    factor = math.ceil(_MIN_WIDTH / (2 * width))
    gap = max(4, factor * width // 100)
    shown = Image.fromarray(image)
    size = len(laid) * (factor * width + gap) - gap, factor * height
    row = Image.new("RGB", size, PAPER) if caption is None else _margin(size, caption, ceiling)
    for number, (heat, outlined, most, clear) in enumerate(laid):
        place = number * (factor * width + gap), 0
        if factor == 1:
            row.paste(shown, place)
            _lay(row, place, heat, outlined, most, clear)
        else:
            panel = shown.copy()
            _lay(panel, (0, 0), heat, outlined, most, clear)
            row.paste(panel.resize((factor * width, factor * height), Image.Resampling.NEAREST), place)
    return row, size


def with_square_pixels(
    image: Picture, anomaly_map: npt.NDArray[np.floating], mask: npt.NDArray[Any], aspect: float
) -> tuple[Picture, npt.NDArray[np.floating], npt.NDArray[np.uint8]]:
    """Widen or heighten a picture, its map and its mask, so that what is seen has the proportions of what was taken.

    Args:
        image: (H, W, 3) uint8.
        anomaly_map: (H, W) in [0, 1].
        mask: (H, W).
        aspect: how much wider than high a pixel is.
    """
    if aspect == 1:
        return image, anomaly_map, mask.astype(np.uint8)
    height, width = image.shape[:2]
    width, height = round(width * max(1, aspect)), round(height / min(1, aspect))
    shown, values, marked = enlarged(image, anomaly_map, mask, width, height)
    return shown, values, np.asarray(marked, dtype=np.uint8)


def displayable(image: Tensor, limits: tuple[float, float] | None = None) -> Tensor:
    """Bring an image to uint8 for the eye: uint8 as it is, [0, 1] times 255, others windowed to 0.5-99.5 %.

    Args:
        image: any shape.
        limits: of what it is a part of (:func:`limits_of`).
    """
    if image.dtype == torch.uint8:
        return image
    low, high = limits_of(image) if limits is None else limits
    if (low, high) == (0.0, 1.0) and not image.amax().isnan():
        return torch.round(image.detach().cpu() * 255).to(torch.uint8)
    values = np.nan_to_num(image.detach().cpu().numpy().astype(np.float32))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return torch.from_numpy(np.round(scaled * 255).astype(np.uint8))


def limits_of(image: Tensor) -> tuple[float, float]:
    """Which values of an image, of any shape, are shown black and white."""
    if image.dtype == torch.uint8:
        return 0.0, 255.0
    values = image.detach().cpu().numpy()
    if values.min() >= 0 and values.max() <= 1:  # false where there are NaNs
        return 0.0, 1.0
    values = np.nan_to_num(values.astype(np.float32))
    if values.min() >= 0 and values.max() <= 1:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


def _check(image: Picture, anomaly_map: npt.NDArray[np.floating] | None, mask: npt.NDArray[np.uint8] | None) -> None:
    sizes = [image.shape[:2], *(given.shape for given in (anomaly_map, mask) if given is not None)]
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or len(set(sizes)) != 1:
        raise ValueError(
            f"Expected an image (H, W, 3) uint8 with map and mask (H, W), got {image.dtype} {image.shape} and "
            f"{', '.join(map(str, sizes[1:]))}."
        )
    if anomaly_map is not None:
        check_map_range(anomaly_map)


def check_map_range(anomaly_map: npt.NDArray[np.floating]) -> None:
    """Refuse a map that is not in [0, 1].

    Raises:
        ValueError: values out of range, or NaN.
    """
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(f"An anomaly map must lie in [0, 1], got [{low:g}, {high:g}].")


def _lay(
    drawn: Image.Image,
    place: tuple[int, int],
    anomaly_map: npt.NDArray[np.floating] | None,
    mask: npt.NDArray[np.uint8] | None,
    ceiling: float = 1.0,
    clear: float | None = None,
    alpha: float = 0.5,
) -> None:
    """Lay a map and the outline of a mask over a part of a picture that begins at a place; see :func:`overlay`."""
    if anomaly_map is not None:
        least = CLEAR * (ceiling != 1) if clear is None else clear
        heat = Image.fromarray(whole_levels(anomaly_map if ceiling == 1 else np.minimum(anomaly_map / ceiling, 1)))
        shares = np.clip((np.arange(256) / 255 - least) / (0.5 - least), 0, 1)
        opacity = heat.point(np.rint(255 * alpha * shares).astype(int).tolist())
        heat.putpalette(_colour_map().tobytes())
        drawn.paste(heat.convert("RGB"), place, opacity)  # picture * (1 - opacity) + colour * opacity, in 8 bits
    if mask is None or not (inside := np.asarray(mask) != 0).any():
        return
    width = max(1, round(max(inside.shape) / 400))
    # The rest of a large picture costs time only.
    extent = [np.flatnonzero(inside.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0)]
    rows, columns = (slice(max(0, first - width), last + 1 + width) for first, last in extent)
    part = inside[rows, columns]
    # Padded with "inside": a region that touches the border of the picture gets no line along it.
    core = _eroded(np.pad(part, width, constant_values=True), width)[width:-width, width:-width]
    line = Image.fromarray(part & ~core)  # of one bit: an eighth of the time that a mask of 8 bits takes
    drawn.paste(_OUTLINE, (place[0] + columns.start, place[1] + rows.start), line)


def whole_levels(anomaly_map: npt.NDArray[np.floating], steps: int = 255) -> npt.NDArray[Any]:
    """A map in [0, 1] as whole numbers from 0 to 255 (uint8), or to 65535 (uint16)."""
    levels = np.multiply(anomaly_map, np.float32(steps), dtype=np.float32)
    np.rint(levels, out=levels)
    return levels.astype(np.uint8 if steps < 256 else np.uint16)  # type: ignore[no-any-return]


def _eroded(inside: npt.NDArray[np.bool_], times: int) -> npt.NDArray[np.bool_]:
    """Without the pixels that have one outside above, below, or beside them, so many times."""
    for _ in range(times):
        core = inside.copy()
        core[1:] &= inside[:-1]
        core[:-1] &= inside[1:]
        core[:, 1:] &= inside[:, :-1]
        core[:, :-1] &= inside[:, 1:]
        inside = core
    return inside


@functools.cache
def _colour_map() -> Picture:
    from matplotlib import colormaps  # late: only pictures need it

    colours: Picture = np.rint(colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    return colours


def resized_map(heat: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[np.float32]:
    """A map of another size, still in [0, 1]."""
    return np.clip(_resized(heat, width, height, Image.Resampling.BILINEAR), 0, 1)


def _resized(values: npt.NDArray[Any], width: int, height: int, how: Image.Resampling) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), how))


def enlarged(
    picture: Picture, heat: npt.NDArray[Any], outline: npt.NDArray[Any] | None, width: int, height: int
) -> tuple[Picture, npt.NDArray[np.float32], npt.NDArray[Any] | None]:
    """Enlarged before anything is drawn, so that outlines stay thin; all by one grid, so that they stay in place."""
    return (
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)),
        resized_map(heat, width, height),
        None if outline is None else _resized(outline, width, height, Image.Resampling.NEAREST) != 0,
    )


def joined(*texts: str) -> str:
    return "  |  ".join(text for text in texts if text)


@functools.lru_cache(maxsize=8)
def font_of(size: int) -> Font:
    return ImageFont.load_default(size)


def jpeg(picture: Drawn, quality: int = 82, thin: bool | None = None) -> bytes:
    """Encode a picture (H, W, 3), or Pillow's of it, as JPEG without metadata.

    Args:
        picture: the picture.
        quality: of JPEG.
        thin: whether its outlines are a pixel wide, which takes the full colour resolution; half of it takes half the
            time. By default by its size, as that of an overlay or of two panels.
    """
    stream = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    subsampling = 0 if (max(image.size) < _LARGE if thin is None else thin) else 2
    image.save(stream, format="JPEG", quality=quality, subsampling=subsampling)
    return stream.getvalue()


def gray_png(pixels: npt.NDArray[np.unsignedinteger[Any]]) -> bytes:
    """A PNG of gray (H, W) in 8 or 16 bits, without metadata, in an eighth of the time that Pillow takes.

    Each row is stored as what it differs by from the one above (filter 2 of the PNG specification): maps are smooth.
    """
    height, width = pixels.shape
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[0, 1:] = 2, rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    size = struct.pack(">2I5B", width, height, 8 * pixels.dtype.itemsize, 0, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", isal_zlib.compress(filtered, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", isal_zlib.crc32(kind + content))
        for kind, content in chunks
    )


def thumbnail(picture: Image.Image, side: int = 96) -> Image.Image:
    """A picture within a square of so many pixels."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BOX)
    return small


def framed(picture: Drawn, caption: str, ceiling: float = 1.0) -> Image.Image:
    """Add the colour bar on the right and the caption with the notice below; nothing is drawn over the picture."""
    inner = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    canvas = _margin(inner.size, caption, ceiling)
    canvas.paste(inner, (0, 0))
    return canvas


def _margin(inner: tuple[int, int], caption: str, ceiling: float) -> Image.Image:
    """Colour bar, caption and notice around a picture of that width and height, which is still to be drawn."""
    width, height = inner
    size = max(11, min(width // 60, 40))
    bar = _bar(height, size, ceiling)
    canvas = Image.new("RGB", (width + bar.width, height + 2 * size), PAPER)
    canvas.paste(bar, (width, 0))
    draw, font = ImageDraw.Draw(canvas), font_of(size)
    text = joined(caption, _NOTICE)
    if draw.textlength(text, font=font) > canvas.width - size:
        text = _NOTICE
    draw.text((size // 2, height + size), text, INK, font, anchor="lm")
    return canvas


@functools.lru_cache(maxsize=8)
def _bar(height: int, size: int, ceiling: float) -> Image.Image:
    """The colour bar and its numbers, beside a picture."""
    strip = Image.new("RGB", (5 * size, height), PAPER)
    top, bottom = size, max(size + 2, height - size)
    ramp = np.linspace(255, 0, bottom - top).round().astype(np.intp)
    strip.paste(Image.fromarray(np.repeat(_colour_map()[ramp][:, None], size, axis=1)), (size, top))
    draw, font = ImageDraw.Draw(strip), font_of(size)
    for share in (0.0, 0.5, 1.0):
        place = (2 * size + size // 3, bottom - share * (bottom - top))
        draw.text(place, f"{share * ceiling:.{1 if ceiling == 1 else 2}f}", INK, font, anchor="lm")
    return strip
