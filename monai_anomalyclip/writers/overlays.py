# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a result: the anomaly map over the input, the mask's outline, a colour bar of fixed range."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.ranking import most_suspicious_first

__all__ = [
    "Picture",
    "contact_sheet",
    "framed",
    "jpeg",
    "large_slice",
    "montage",
    "overlay",
    "side_by_side",
    "thumbnail",
    "with_square_pixels",
]

Picture = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_OUTLINE = (0, 255, 255)  # cyan: the one hue the colour map does not hold
_PAPER, _INK = (18, 18, 18), (230, 230, 230)
_NOTICE = "research use only"
_MIN_WIDTH = 260  # smaller pictures are enlarged by a whole factor, so that the margin's text fits
_TILE = 300  # longer side of a slice on the contact sheet
_ALONE = 768  # longer side of a slice that is shown alone
_STRIP = 32768  # pixels
_LARGE = 1200  # columns of two panels whose outlines are two pixels wide
_MONTAGE_COLUMNS = 2  # a phone shows the montage at half its size: two columns leave the labels readable


def overlay(
    image: Picture, anomaly_map: npt.NDArray[np.floating], mask: npt.NDArray[np.uint8] | None, alpha: float = 0.5
) -> Picture:
    """Lay a map over a picture.

    The colours (matplotlib's inferno) stand for fixed values, 0 to 1, never for a picture's own minimum and maximum.
    Opacity rises with the map from none at 0 to `alpha` at 0.5 and above, so that normal tissue stays as it is.

    Args:
        image: (H, W, 3) uint8.
        anomaly_map: (H, W) in [0, 1].
        mask: (H, W), non-zero where anomalous, drawn as a cyan outline; None for no outline.
        alpha: greatest opacity, in [0, 1].

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the sizes differ, or the map is not in [0, 1].
    """
    _check(image, anomaly_map, mask)
    blended = _blended(image, anomaly_map, alpha)
    if mask is not None and (inside := np.asarray(mask) != 0).any():
        width = max(1, round(max(inside.shape) / 400))
        (extent,) = ndimage.find_objects(inside.astype(np.uint8))  # the rest of a large picture costs time only
        window = tuple(slice(max(0, side.start - width), side.stop + width) for side in extent)
        # Padded with "inside": a region that touches the border of the picture gets no line along it.
        padded = np.pad(inside[window], width, constant_values=True)
        core = ndimage.binary_erosion(padded, ndimage.generate_binary_structure(2, 1), iterations=width)
        core = core[width:-width, width:-width]
        blended[window][inside[window] & ~core] = _OUTLINE
    return blended


def side_by_side(
    image: Picture,
    anomaly_map: npt.NDArray[np.floating],
    mask: npt.NDArray[np.uint8] | None,
    caption: str = "",
    margin: bool = True,
    truth: npt.NDArray[np.uint8] | None = None,
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

    Raises:
        ValueError: as for :func:`overlay`.
    """
    pictures = [image, overlay(image, anomaly_map, mask)]
    if truth is not None:
        pictures.append(overlay(image, np.zeros(image.shape[:2], np.float32), truth))
    factor = math.ceil(_MIN_WIDTH / (2 * image.shape[1]))
    panels = [panel.repeat(factor, 0).repeat(factor, 1) if factor > 1 else panel for panel in pictures]
    gap = np.full((panels[0].shape[0], max(4, panels[0].shape[1] // 100), 3), _PAPER, np.uint8)
    row = np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)
    return framed(row, caption) if margin else row


def contact_sheet(
    volume: Tensor,
    anomaly_map: Tensor,
    mask: Tensor | None,
    view: SliceView,
    max_slices: int = 12,
    caption: str = "",
    order: Sequence[int] | None = None,
) -> Picture:
    """Show the most suspicious slices of a volume, in the order of the volume.

    Each slice is drawn with square pixels and labelled with its index (from 0, along the view's slice axis) and its
    highest map value. Slices look as :class:`SliceView` says.

    Args:
        volume: (1, X, Y, Z) or (3, X, Y, Z); uint8, float in [0, 1], or anything else, which is windowed to its 0.5th
            to 99.5th percentile.
        anomaly_map: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z), or None.
        view: how the volume is sliced.
        max_slices: greatest number of slices.
        caption: text for the margin.
        order: indices of the slices, the most suspicious first (:meth:`Findings.order`); None: by highest map value.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: as for :func:`overlay`, or max_slices is less than 1.
    """
    maps, peaks = _maps_and_peaks(anomaly_map, view)
    chosen = _first(peaks, order, max_slices)
    labels = [f"slice {index}    max {peaks[index]:.2f}" for index in chosen]
    tiles = _tiles(volume, maps, mask, view, chosen, labels, font_size=14)
    columns = _columns(len(tiles), tiles[0].shape[1] / tiles[0].shape[0])
    return framed(_grid(tiles, columns), _joined(f"{len(chosen)} of {view.n_slices} {view.plane} slices", caption))


def montage(
    volume: Tensor,
    anomaly_map: Tensor,
    mask: Tensor | None,
    view: SliceView,
    order: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    max_slices: int = 6,
) -> Picture:
    """Show the most suspicious slices, in the order of the volume, two abreast: for a page that explains them itself.

    Like :func:`contact_sheet` without colour bar and caption.

    Args:
        volume: as for :func:`contact_sheet`.
        anomaly_map: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z), or None.
        view: how the volume is sliced.
        order: as for :func:`contact_sheet`.
        labels: one text per slice of the volume; None: its index and its highest map value.
        max_slices: greatest number of slices.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: as for :func:`contact_sheet`, or labels are not one per slice.
    """
    maps, peaks = _maps_and_peaks(anomaly_map, view)
    if labels is None:
        labels = [f"slice {index}    max {peak:.3f}" for index, peak in enumerate(peaks)]
    if len(labels) != view.n_slices:
        raise ValueError(f"Labels must be one per slice ({view.n_slices}), got {len(labels)}.")
    chosen = _first(peaks, order, max_slices)
    tiles = _tiles(volume, maps, mask, view, chosen, [labels[index] for index in chosen], font_size=19)
    return _grid(tiles, min(_MONTAGE_COLUMNS, len(tiles)))


def large_slice(
    volume: Tensor, anomaly_map: Tensor, mask: Tensor | None, view: SliceView, index: int, caption: str = ""
) -> Picture:
    """Show one slice alone, large and with square pixels, beside its overlay.

    Args:
        volume: as for :func:`contact_sheet`.
        anomaly_map: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z), or None.
        view: how the volume is sliced.
        index: of the slice, from 0.
        caption: text for the margin.

    Returns:
        (height, width, 3) uint8, about 1600 pixels wide where the slice is square.
    """
    picture = displayable(view.to_slices(volume)[[index]], volume).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()[0]
    heat = view.to_slices(anomaly_map)[index, 0].numpy()
    outline = None if mask is None else view.to_slices(mask)[index, 0].numpy()
    height, width = _square_pixels(view, _ALONE)
    shown, values, marked = _enlarged(picture, heat, outline, width, height)
    return side_by_side(shown, values, None if marked is None else marked.astype(np.uint8), caption)


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
    shown, values, marked = _enlarged(image, anomaly_map, mask, width, height)
    return shown, values, np.asarray(marked, dtype=np.uint8)


def displayable(image: Tensor, whole: Tensor | None = None) -> Tensor:
    """Bring an image to uint8 for the eye: uint8 as it is, [0, 1] times 255, others windowed to 0.5-99.5 %.

    Args:
        image: any shape.
        whole: what the limits are taken from if `image` is a part of it.
    """
    if image.dtype == torch.uint8:
        return image
    low, high = _limits(image if whole is None else whole)
    if whole is None and (low, high) == (0.0, 1.0) and not image.isnan().any():
        return torch.round(image.detach().cpu() * 255).to(torch.uint8)
    values = np.nan_to_num(image.detach().cpu().numpy().astype(np.float32))
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return torch.from_numpy(np.round(scaled * 255).astype(np.uint8))


def _limits(image: Tensor) -> tuple[float, float]:
    values = image.detach().cpu().numpy()
    if values.min() >= 0 and values.max() <= 1:  # false where there are NaNs
        return 0.0, 1.0
    values = np.nan_to_num(values.astype(np.float32))
    if values.min() >= 0 and values.max() <= 1:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


def _check(image: Picture, anomaly_map: npt.NDArray[np.floating], mask: npt.NDArray[np.uint8] | None) -> None:
    sizes = [image.shape[:2], anomaly_map.shape, *([] if mask is None else [mask.shape])]
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or len(set(sizes)) != 1:
        raise ValueError(
            f"Expected an image (H, W, 3) uint8 with map and mask (H, W), got {image.dtype} {image.shape} and "
            f"{', '.join(map(str, sizes[1:]))}."
        )
    check_map_range(anomaly_map)


def check_map_range(anomaly_map: npt.NDArray[np.floating]) -> None:
    """Refuse a map that is not in [0, 1].

    Raises:
        ValueError: values out of range, or NaN.
    """
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(f"An anomaly map must lie in [0, 1], got [{low:g}, {high:g}].")


def _blended(image: Picture, anomaly_map: npt.NDArray[np.floating], alpha: float) -> Picture:
    """``image * (1 - opacity) + colour * opacity``, a strip of rows at a time: what is computed stays in the cache."""
    blended = np.empty_like(image)
    step = max(1, _STRIP // image.shape[1])
    for top in range(0, len(image), step):
        rows = slice(top, top + step)
        heat = anomaly_map[rows]
        colours = _colour_map().take(np.rint(heat * 255).astype(np.intp), axis=0)
        opacity = np.minimum(2 * np.asarray(heat, dtype=np.float32), 1) * np.float32(alpha)
        weight = np.repeat(opacity[..., None], 3, axis=2)
        colours *= weight
        np.subtract(1, weight, out=weight)
        weight *= image[rows]
        weight += colours
        blended[rows] = np.rint(weight, out=weight)
    return blended


@functools.cache
def _colour_map() -> npt.NDArray[np.float32]:
    from matplotlib import colormaps  # late: only pictures need it

    return np.asarray(colormaps["inferno"](np.arange(256))[:, :3] * 255, dtype=np.float32)


def _resized(values: npt.NDArray[Any], width: int, height: int, how: Image.Resampling) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), how))


def _maps_and_peaks(anomaly_map: Tensor, view: SliceView) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The slices of the map, (D, H, W), and the highest value of each."""
    maps = view.to_slices(anomaly_map)[:, 0].numpy()
    check_map_range(maps)
    return maps, maps.max(axis=(1, 2))  # which may be a view: no copy of a volume


def _first(peaks: npt.NDArray[np.floating], order: Sequence[int] | None, count: int) -> list[int]:
    """The first indices of an order of suspicion, ascending."""
    if count < 1:
        raise ValueError(f"max_slices must be at least 1, got {count}.")
    ranked = most_suspicious_first(peaks) if order is None else order
    if sorted(ranked) != list(range(len(peaks))):
        raise ValueError(f"An order must hold each of the {len(peaks)} slices once, got {len(ranked)} indices.")
    return sorted(ranked[:count])


def _tiles(
    volume: Tensor,
    maps: npt.NDArray[np.float32],
    mask: Tensor | None,
    view: SliceView,
    chosen: list[int],
    labels: Sequence[str],
    font_size: int,
) -> list[Picture]:
    """Overlays of the chosen slices with square pixels, all of one size, each with its label below."""
    # Converted after the choice: a large volume costs no second copy of itself.
    slices = displayable(view.to_slices(volume)[chosen], volume)
    pictures = slices.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    outlines = None if mask is None else view.to_slices(mask)[:, 0].numpy()
    height, width = _square_pixels(view, _TILE)
    font = _font(font_size)
    room = math.ceil(max(font.getlength(label) for label in labels)) + font_size
    tiles = []
    for picture, index, label in zip(pictures, chosen, labels, strict=True):
        tile = overlay(*_enlarged(picture, maps[index], None if outlines is None else outlines[index], width, height))
        tiles.append(_with_text_below(tile, label, font, font_size + 10, room))
    return tiles


def _square_pixels(view: SliceView, side: int) -> tuple[int, int]:
    """Height and width of a slice that is shown with square pixels, its longer side `side`."""
    millimetres = np.array(view.slice_shape) * np.array(view.pixel_spacing)
    height, width = (max(1, round(float(length))) for length in millimetres * side / millimetres.max())
    return height, width


def _enlarged(
    picture: Picture, heat: npt.NDArray[Any], outline: npt.NDArray[Any] | None, width: int, height: int
) -> tuple[Picture, npt.NDArray[np.float32], npt.NDArray[Any] | None]:
    """Enlarged before anything is drawn, so that outlines stay thin; all by one grid, so that they stay in place."""
    return (
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)),
        np.clip(_resized(heat, width, height, Image.Resampling.BILINEAR), 0, 1),
        None if outline is None else _resized(outline, width, height, Image.Resampling.NEAREST) != 0,
    )


def _grid(tiles: list[Picture], columns: int) -> Picture:
    tiles = tiles + [np.full_like(tiles[0], _PAPER)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _columns(count: int, aspect: float) -> int:
    """The number of columns that makes a grid of `count` tiles landscape (about 4:3) with few empty places."""

    def ugliness(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(aspect * columns / rows * 3 / 4)) + (rows * columns - count) / count

    return min(range(1, count + 1), key=ugliness)


def _joined(*texts: str) -> str:
    return "  |  ".join(text for text in texts if text)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _with_text_below(tile: Picture, text: str, font: Font, line: int, room: int) -> Picture:
    """The tile, in the middle of at least `room` columns, above a line of text."""
    side = max(0, room - tile.shape[1])
    tile = np.pad(tile, ((0, 0), (side // 2, side - side // 2), (0, 0)), constant_values=_PAPER[0])
    strip = Image.new("RGB", (tile.shape[1], line), _PAPER)
    ImageDraw.Draw(strip).text((tile.shape[1] // 2, line // 2), text, _INK, font, anchor="mm")
    return np.pad(np.concatenate([tile, np.asarray(strip)]), ((2, 0), (2, 2), (0, 0)), constant_values=_PAPER[0])


def jpeg(picture: Picture, quality: int = 82, thin: bool | None = None) -> bytes:
    """Encode a picture (H, W, 3) as JPEG without metadata.

    Args:
        picture: the picture.
        quality: of JPEG.
        thin: whether its outlines are a pixel wide, which takes the full colour resolution; half of it takes half the
            time. By default by its size, as that of an overlay or of two panels.
    """
    stream = io.BytesIO()
    subsampling = 0 if (max(picture.shape) < _LARGE if thin is None else thin) else 2
    Image.fromarray(picture).save(stream, format="JPEG", quality=quality, subsampling=subsampling)
    return stream.getvalue()


def thumbnail(picture: Picture, side: int = 96) -> Picture:
    """A picture within a square of so many pixels."""
    small = Image.fromarray(picture)
    small.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(small)


def framed(picture: Picture, caption: str) -> Picture:
    """Add the colour bar on the right and the caption with the notice below; nothing is drawn over the picture."""
    height, width = picture.shape[:2]
    size = max(11, min(width // 60, 40))
    bar_width, line = size, 2 * size
    canvas = Image.new("RGB", (width + 5 * size, height + line), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)

    top, bottom = size, max(size + 2, height - size)
    ramp = np.linspace(255, 0, bottom - top).round().astype(np.intp)
    bar = np.repeat(_colour_map()[ramp][:, None], bar_width, axis=1).astype(np.uint8)
    canvas.paste(Image.fromarray(bar), (width + size, top))
    font = _font(size)
    for value in (0.0, 0.5, 1.0):
        draw.text(
            (width + 2 * size + size // 3, bottom - value * (bottom - top)), f"{value:.1f}", _INK, font, anchor="lm"
        )

    text = _joined(caption, _NOTICE)
    if draw.textlength(text, font=font) > canvas.width - size:
        text = _NOTICE
    draw.text((size // 2, height + line // 2), text, _INK, font, anchor="lm")
    return np.asarray(canvas)
