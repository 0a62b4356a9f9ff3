# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Outlines of a mask as polygons, which is how CVAT keeps regions."""

from __future__ import annotations

import contourpy
import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["mask_polygons"]

_JUST_INSIDE = 0.999  # of the step from 0 to 1 between neighbouring pixels

_Points = npt.NDArray[np.float64]


def mask_polygons(
    mask: npt.ArrayLike, *, min_area: float = 10.0, tolerance: float = 0.5
) -> list[list[tuple[int, int]]]:
    """Outer outlines of the regions of a mask, through the centres of their outermost pixels, as OpenCV draws them.

    Holes are filled, since a CVAT polygon has none. Pixels that touch by a corner only are in regions of their own.

    Args:
        mask: (H, W); every value but 0 belongs to a region.
        min_area: smaller regions are left out, in pixels.
        tolerance: how far the outline may be off the region's own, in pixels.

    Returns:
        polygons of at least three different corners (x to the right, y down) in whole pixels, the largest region first.

    Raises:
        ValueError: the mask has another number of dimensions.
    """
    marked = np.asarray(mask) != 0
    if marked.ndim != 2:
        raise ValueError(f"Expected a mask (H, W), got shape {marked.shape}.")
    regions, count = ndimage.label(ndimage.binary_fill_holes(marked))
    areas = ndimage.sum_labels(regions > 0, regions, range(1, count + 1))
    order = sorted(range(1, count + 1), key=lambda number: -areas[number - 1])
    outlines = [_outline(regions == number, tolerance) for number in order if areas[number - 1] >= min_area]
    return [outline for outline in outlines if len(set(outline)) >= 3]


def _outline(region: npt.NDArray[np.bool_], tolerance: float) -> list[tuple[int, int]]:
    # A border of zeros closes the outlines of regions that reach the edge of the picture.
    padded = np.pad(region, 1).astype(np.float64)
    lines = contourpy.contour_generator(z=padded).lines(_JUST_INSIDE)
    points = np.rint(np.asarray(lines[0], dtype=np.float64)[:-1]) - 1
    corners = _simplified(points, tolerance)
    return [(int(x), int(y)) for x, y in corners]


def _simplified(points: _Points, tolerance: float) -> _Points:
    """Douglas-Peucker on a closed line, cut at its first point and at the one farthest from it."""
    farthest = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, farthest, len(points)]] = True
    open_parts = [(0, farthest), (farthest, len(points))]
    while open_parts:
        start, stop = open_parts.pop()
        if stop - start < 2:
            continue
        distances = _distance_to_chord(closed[start + 1 : stop], closed[start], closed[stop])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = start + 1 + worst
            keep[middle] = True
            open_parts += [(start, middle), (middle, stop)]
    return closed[:-1][keep[:-1]]


def _distance_to_chord(points: _Points, start: _Points, stop: _Points) -> _Points:
    chord = stop - start
    length = float(np.hypot(*chord))
    offsets = points - start
    if length == 0:
        return np.hypot(offsets[:, 0], offsets[:, 1])
    return np.asarray(np.abs(chord[0] * offsets[:, 1] - chord[1] * offsets[:, 0]) / length)
