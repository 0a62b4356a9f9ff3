# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The background of an image: values that were put there and not measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from monai_anomalyclip.transforms.intensity_presets import LOWER, UPPER

__all__ = ["find_background"]

_LEVELS_SAMPLE = 2**20  # values that are counted one by one

# What tells a value that was put there (padding, a background of 0) from one that was measured.
_SHARE = 0.01  # of all values
_TIMES = 5  # as often as the most frequent measured one
_MEASURED = 16  # at least so many different values must be measured: drawings and label maps have no background
_OF_BORDER = 0.25
_GRAY = 0.05  # of the contrast above its lower end: darker, a background does no harm
_ROUNDING = 1e-5  # of the contrast: values so close together can be one that arithmetic has spread
_JITTER = 2e-4  # so close, and so many beside so few: where no measured value can be that still
_UNIFORM = 0.01  # a quarter of the border so close together is doubtful
_MOST_LEVELS = 4  # padding within padding
_STEPS = 6  # between neighbouring values, to either side


def find_background(values: Tensor) -> tuple[float, ...]:
    """The values of an image that were put there and not measured, from the outside inwards; often none.

    Measured values are spread; one that is far more frequent than all of them and fills the border of the image is its
    background, wherever it lies among them: padding, or the 0 that normalisation leaves around a z-scored head. In an
    image cropped to the head, it must fill half of the corners. Behind it there may be another: a value that fills the
    border of what remains, and lies so far from the rest that beside it the rest would lose more than half of its
    contrast. When the outer one lies so far off, or is negative beside a 0 that nothing measured undercuts, it is
    padding around a whole image, and the next is looked for as if there were no padding.

    The smallest value of an image needs not be found: :func:`percentile_limits` leaves it out anyway.

    Args:
        values: one image or volume, any number of axes.

    Returns:
        at most four values.

    Example::

        find_background(z_scored_head)  # (0.0,)
    """
    return search_background(values)[0]


def search_background(values: Tensor) -> tuple[tuple[float, ...], bool]:
    """As :func:`find_background`, and whether another value that was put there touches the border and is shown gray."""
    counted = _counted(values)
    put_there = _frequent_levels(counted)
    found: list[float] = []
    while len(found) < min(len(put_there), _MOST_LEVELS):
        border, corners = _border(values, found)
        if not len(border):
            break
        levels, counts = np.unique(border, return_counts=True)
        level = float(levels[counts.argmax()])
        rest = counted[~np.isin(counted, [*found, level])]
        if level not in put_there or not len(rest):
            break
        low, high = np.percentile(rest, [LOWER, UPPER]).tolist()
        in_corners = 2 * np.count_nonzero(corners == level) >= max(len(corners), 1) and _is_gray(level, low, high)
        if counts.max() < _OF_BORDER * len(border) and not in_corners:
            break
        if found and not is_far(level, low, high):
            padded = is_far(found[-1], min(level, low), max(level, high)) or found[-1] < level == 0 <= rest.min()
            if not padded:
                break
        found.append(level)
    doubt = False
    for level in put_there.difference(found):
        rest = counted[~np.isin(counted, [*found, level])]
        if len(rest) and _is_gray(level, *np.percentile(rest, [LOWER, UPPER]).tolist()):
            border, _ = _border(values, found)
            doubt |= bool(np.count_nonzero(border == level) > _SHARE * len(border))
    return tuple(found), doubt or _is_uniform(values, found, counted)


def _is_uniform(values: Tensor, found: Sequence[float], counted: npt.NDArray[np.float32]) -> bool:
    """Whether a quarter of the border, half of its corners among it, is gray and has nearly, but not wholly, one value.

    Noise that somebody added to a background of 0 is too wide for :func:`spread_levels`.
    """
    border, corners = _border(values, found)
    rest = counted[~np.isin(counted, found)]
    count = int(_OF_BORDER * len(border))
    if count < _MEASURED or not len(rest):
        return False
    low, high = np.percentile(rest, [LOWER, UPPER]).tolist()
    ordered = np.sort(border)
    place = int((ordered[count:] - ordered[:-count]).argmin())
    first, last = ordered[place], ordered[place + count]
    repeated = 2 * len(np.unique(ordered[place : place + count])) < count
    if repeated or last - first > _UNIFORM * (high - low) or not _is_gray(float(first), low, high):
        return False
    reach = last - first
    return bool(2 * np.count_nonzero(np.abs(corners - (first + last) / 2) <= 2 * reach) >= max(len(corners), 1))


def spread_levels(image: Tensor) -> list[tuple[float, float, float]]:
    """Levels that arithmetic has spread over neighbouring numbers, each as (lowest, highest, level).

    Resampling, or scaling there and back, leaves 1e-7 around a background of 0, a filter or a lossy file 1e-4, and no
    value is frequent any more. A level is where a hundredth of all values lies closer together than measured ones can.
    Noise of dark air that is no smaller than rounding is left as it is, for it may well be measured beside a bright
    organ; where it would be seen, gray or so far off that it costs contrast, it is a level while it stands out.
    """
    ordered = np.sort(_counted(image))
    found = _clusters(ordered, _ROUNDING, seen=False)
    wide = [one for one in _clusters(ordered, _JITTER, seen=True) if _stands_out(ordered, one)]
    return found + [one for one in wide if not any(first <= one[1] and one[0] <= last for first, last, _ in found)]


def _clusters(ordered: npt.NDArray[np.float32], tolerance: float, seen: bool) -> list[tuple[float, float, float]]:
    """Where a hundredth of all values lies closer together than a tolerance, of the contrast.

    Args:
        ordered: all values, ascending.
        tolerance: share of the contrast.
        seen: only where it would be seen.
    """
    count = max(int(_SHARE * len(ordered)), _MEASURED)
    measured, contrast = ordered, math.inf
    low = high = 0.0
    within = np.empty(0, bool)
    for _ in range(3):  # the contrast first with these levels in it, then without
        if len(measured) <= count:
            return []
        low, high = np.percentile(measured, [LOWER, UPPER]).tolist()
        contrast = min(contrast, high - low)
        closeness = _rounding(ordered[:-count], contrast, tolerance)
        close = np.flatnonzero(ordered[count:] - ordered[:-count] <= closeness)
        if not len(close):
            return []
        begun, ended = (np.bincount(place, minlength=len(ordered) + 1) for place in (close, close + count + 1))
        within = np.cumsum(begun - ended)[:-1] > 0
        measured = ordered[~within]
    clustered = ordered[within]
    found = []
    edges = np.flatnonzero(np.diff(clustered) > _rounding(clustered[:-1], contrast, tolerance)) + 1
    for cluster in np.split(clustered, edges):
        # A hundredth at either end may be measured values that lie as close.
        first, level, last = np.percentile(cluster, [1, 50, 99], method="nearest").tolist()
        first, last = first - (last - first), last + (last - first)
        narrow = 0 < last - first < 9 * _rounding(level, contrast, tolerance)
        if narrow and (not seen or _is_gray(level, low, high) or is_far(level, low, high)):
            found.append((first, last, level))
    return found


def _stands_out(ordered: npt.NDArray[np.float32], cluster: tuple[float, float, float]) -> bool:
    """Whether there are far more values in a cluster than in as wide a range to either side."""
    first, last, _ = cluster
    edges = np.searchsorted(ordered, [2 * first - last, first, last, 2 * last - first])
    below, inside, above = np.diff(edges).tolist()
    return bool(inside >= _TIMES * (below + above))


def _rounding(values: npt.NDArray[np.float32] | float, contrast: float, tolerance: float) -> npt.NDArray[np.float32]:
    """How far a value is spread: by arithmetic in its own float32, and by that of the others it was computed with."""
    return np.maximum(tolerance * contrast, 8 * np.finfo(np.float32).eps * np.abs(values))


def gather_(values: Tensor, spread: Sequence[tuple[float, float, float]]) -> Tensor:
    """Make one value again of each that :func:`spread_levels` found, in place."""
    for first, last, level in spread:
        values.masked_fill_((values >= first) & (values <= last), level)
    return values


def _frequent_levels(values: npt.NDArray[np.float32]) -> set[float]:
    """Values that are far more frequent than the many that were measured."""
    levels, counts = np.unique(values, return_counts=True)
    frequent = counts >= _SHARE * len(values)
    if not frequent.any() or np.count_nonzero(~frequent) < _MEASURED:
        return set()
    return set(levels[frequent & (counts >= _TIMES * counts[~frequent].max())].tolist())


def is_far(level: float, low: float, high: float) -> bool:
    """Whether a range that has to hold a value, too, would leave less than half of its own to what it held before."""
    return max(low - level, level - high) > high - low


def _is_gray(level: float, low: float, high: float) -> bool:
    return low + _GRAY * (high - low) < level <= high


def _border(values: Tensor, known: Sequence[float]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Finite values on the faces, and in the corners, of the smallest box that holds all but the known background.

    The known background itself, which is not all that there is, is left out.
    """
    inner = values.squeeze()
    if known:
        other = values.squeeze().isfinite()
        for level in known:
            other &= inner != level
        for axis in range(inner.ndim):
            others = [dim for dim in range(inner.ndim) if dim != axis]
            filled = (other.amax(dim=others) if others else other).nonzero().flatten()
            first, count = int(filled[0]), int(filled[-1] - filled[0]) + 1
            inner, other = inner.narrow(axis, first, count), other.narrow(axis, first, count)
    faces = [inner.select(axis, side).flatten() for axis, side in product(range(inner.ndim), (0, -1))]
    border = np.concatenate([finite(every_nth(face, _LEVELS_SAMPLE)).cpu().numpy() for face in faces])
    corners = finite(torch.stack([inner[corner] for corner in product((0, -1), repeat=inner.ndim)])).cpu().numpy()
    return border[~np.isin(border, known)], corners[~np.isin(corners, known)]


def surround(values: Tensor, level: float, spread: bool = False) -> Tensor:
    """Where a value within the range of the measured ones is background.

    Where values repeat, as whole numbers do, tissue can have this one by chance, unless it lies between their steps:
    then only large regions that reach the border count.

    Args:
        values: the image, its background gathered.
        level: the background.
        spread: whether other values were gathered into it: then tissue has it by chance, too, and large regions count.
    """
    mask = values == level
    measured = _counted(values)
    measured = measured[measured != level]
    levels = np.unique(measured)
    place = int(np.searchsorted(levels, level))
    steps = np.diff(levels[max(place - _STEPS, 0) : place + _STEPS])
    between = levels[place] - levels[place - 1] < 1.5 * np.median(steps) if 0 < place < len(levels) else True
    if not spread and (between or len(measured) < 2 * len(levels)):
        return mask
    labels, _ = ndimage.label(mask.squeeze().cpu().numpy())
    faces = [np.unique(np.take(labels, side, axis)) for axis, side in product(range(labels.ndim), (0, -1))]
    large = np.flatnonzero(np.bincount(labels.ravel()) >= _SHARE * int(mask.sum()))
    large = large[large > 0]
    outside = large if spread else np.intersect1d(np.concatenate(faces), large)
    return torch.from_numpy(np.isin(labels, outside)).reshape(mask.shape).to(mask.device)


def _counted(values: Tensor) -> npt.NDArray[np.float32]:
    counted: npt.NDArray[np.float32] = finite(every_nth(values.flatten(), _LEVELS_SAMPLE)).cpu().numpy()
    return counted


def every_nth(flat: Tensor, most: int) -> Tensor:
    # An odd stride, since an even one could miss every second column.
    return flat if len(flat) <= most else flat[:: -(-len(flat) // most) | 1]


def finite(values: Tensor) -> Tensor:
    finite = values.isfinite()
    return values if finite.all() else values[finite]
