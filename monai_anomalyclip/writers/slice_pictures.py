# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a volume's result: its most suspicious slices on a sheet, or one of them alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from torch import Tensor

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.ranking import most_suspicious_first
from monai_anomalyclip.writers.overlays import (
    CLEAR,
    INK,
    PAPER,
    Font,
    Picture,
    check_map_range,
    displayable,
    enlarged,
    font_of,
    framed,
    joined,
    limits_of,
    overlay,
    resized_map,
    side_by_side,
)

__all__ = ["contact_sheet", "large_slice", "montage"]

_TILE = 300  # longer side of a slice on the contact sheet
_ALONE = 768  # longer side of a slice that is shown alone
_MONTAGE_COLUMNS = 2  # a phone shows the montage at half its size: two columns leave the labels readable


def contact_sheet(
    volume: Tensor,
    anomaly_map: Tensor,
    mask: Tensor | None,
    view: SliceView,
    max_slices: int = 12,
    caption: str = "",
    order: Sequence[int] | None = None,
    *,
    ceiling: float = 1.0,
    beside: Tensor | None = None,
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
        ceiling: as for :func:`~monai_anomalyclip.writers.overlays.overlay`.
        beside: (1, X, Y, Z) in [0, 1], another map, drawn to the right of each slice.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: as for :func:`overlay`, or max_slices is less than 1.
    """
    maps, peaks = _maps_and_peaks(anomaly_map, view)
    chosen = _first(peaks, order, max_slices)
    labels = [f"slice {index}    max {peaks[index]:.2f}" for index in chosen]
    tiles = _tiles(volume, maps, mask, view, chosen, labels, 14, ceiling, beside)
    columns = _columns(len(tiles), tiles[0].shape[1] / tiles[0].shape[0])
    sheet, text = _grid(tiles, columns), f"{len(chosen)} of {view.n_slices} {view.plane} slices"
    return np.asarray(framed(sheet, joined(text, caption), ceiling))


def montage(
    volume: Tensor,
    anomaly_map: Tensor,
    mask: Tensor | None,
    view: SliceView,
    order: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    max_slices: int = 6,
    *,
    ceiling: float = 1.0,
    beside: Tensor | None = None,
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
        ceiling: as for :func:`contact_sheet`.
        beside: likewise; there is one slice in a row then.

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
    tiles = _tiles(volume, maps, mask, view, chosen, [labels[index] for index in chosen], 19, ceiling, beside)
    return _grid(tiles, 1 if beside is not None else min(_MONTAGE_COLUMNS, len(tiles)))


def large_slice(
    volume: Tensor,
    anomaly_map: Tensor,
    mask: Tensor | None,
    view: SliceView,
    index: int,
    caption: str = "",
    *,
    ceiling: float = 1.0,
    beside: Tensor | None = None,
) -> Picture:
    """Show one slice alone, large and with square pixels, beside its overlay.

    Args:
        volume: as for :func:`contact_sheet`.
        anomaly_map: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z), or None.
        view: how the volume is sliced.
        index: of the slice, from 0.
        caption: text for the margin.
        ceiling: as for :func:`contact_sheet`.
        beside: another map, whose overlay is one more panel.

    Returns:
        (height, width, 3) uint8, about 1600 pixels wide where the slice is square.
    """
    picture = (
        displayable(view.to_slices(volume)[[index]], limits_of(volume))
        .permute(0, 2, 3, 1)
        .expand(-1, -1, -1, 3)
        .numpy()[0]
    )
    heat = view.to_slices(anomaly_map)[index, 0].numpy()
    outline = None if mask is None else view.to_slices(mask)[index, 0].numpy()
    height, width = _square_pixels(view, _ALONE)
    shown, values, marked = enlarged(picture, heat, outline, width, height)
    other = None if beside is None else resized_map(view.to_slices(beside)[index, 0].numpy(), width, height)
    outlined = None if marked is None else marked.astype(np.uint8)
    return side_by_side(shown, values, outlined, caption, ceiling=ceiling, beside=other)


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
    ceiling: float,
    beside: Tensor | None,
) -> list[Picture]:
    """Overlays of the chosen slices with square pixels, all of one size, each with its label below."""
    # Converted after the choice: a large volume costs no second copy of itself.
    slices = displayable(view.to_slices(volume)[chosen], limits_of(volume))
    pictures = slices.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    outlines = None if mask is None else view.to_slices(mask)[:, 0].numpy()
    height, width = _square_pixels(view, _TILE)
    font = font_of(font_size)
    room = math.ceil(max(font.getlength(label) for label in labels)) + font_size
    tiles = []
    for picture, index, label in zip(pictures, chosen, labels, strict=True):
        shown = enlarged(picture, maps[index], None if outlines is None else outlines[index], width, height)
        tile = overlay(*shown, ceiling=ceiling)
        if beside is not None:
            other = overlay(
                shown[0], resized_map(view.to_slices(beside)[index, 0].numpy(), width, height), None, clear=CLEAR
            )
            tile = np.concatenate([tile, np.full_like(tile[:, :4], PAPER), other], axis=1)
        tiles.append(_with_text_below(tile, label, font, font_size + 10, room))
    return tiles


def _square_pixels(view: SliceView, side: int) -> tuple[int, int]:
    """Height and width of a slice that is shown with square pixels, its longer side `side`."""
    millimetres = np.array(view.slice_shape) * np.array(view.pixel_spacing)
    height, width = (max(1, round(float(length))) for length in millimetres * side / millimetres.max())
    return height, width


def _grid(tiles: list[Picture], columns: int) -> Picture:
    tiles = tiles + [np.full_like(tiles[0], PAPER)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def _columns(count: int, aspect: float) -> int:
    """The number of columns that makes a grid of `count` tiles landscape (about 4:3) with few empty places."""

    def ugliness(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(aspect * columns / rows * 3 / 4)) + (rows * columns - count) / count

    return min(range(1, count + 1), key=ugliness)


def _with_text_below(tile: Picture, text: str, font: Font, line: int, room: int) -> Picture:
    """The tile, in the middle of at least `room` columns, above a line of text."""
    side = max(0, room - tile.shape[1])
    tile = np.pad(tile, ((0, 0), (side // 2, side - side // 2), (0, 0)), constant_values=PAPER[0])
    strip = Image.new("RGB", (tile.shape[1], line), PAPER)
    ImageDraw.Draw(strip).text((tile.shape[1] // 2, line // 2), text, INK, font, anchor="mm")
    return np.pad(np.concatenate([tile, np.asarray(strip)]), ((2, 0), (2, 2), (0, 0)), constant_values=PAPER[0])
