# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Raw intensities to [0, 1], for every kind of file: windows, the background of an image, percentiles of the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms.utils_pytorch_numpy_unification import percentile
from scipy import ndimage
from torch import Tensor

from monai_anomalyclip.transforms.intensity_presets import LOWER, UPPER, IntensityChoice, window_limits

__all__ = ["apply_window", "find_background", "percentile_limits", "scale_", "scale_by_percentiles_"]

_CHUNK = 2**22
_SAMPLE = 2**23  # values that percentiles are taken of
_LEVELS_SAMPLE = 2**20  # values that are counted one by one

# What tells a value that was put there (padding, a background of 0) from one that was measured.
_SHARE = 0.01  # of all values
_TIMES = 5  # as often as the most frequent measured one
_MEASURED = 16  # at least so many different values must be measured: drawings and label maps have no background
_OF_BORDER = 0.25
_MOST_LEVELS = 4  # padding within padding
_STEPS = 6  # between neighbouring values, to either side


def scale_(values: Tensor, low: float, high: float) -> Tensor:
    """Map `low` to 0 and `high` to 1 and clip, in place; NaN stay. Equal limits make a step above them."""
    return values.sub_(low).div_(max(high - low, 1e-6)).clamp_(0, 1)


def apply_window(values: NdarrayOrTensor, width: float, level: float) -> Tensor:
    """Values seen through the linear window of DICOM PS3.3 C.11.2.1.2.1 (see :func:`window_limits`).

    Args:
        values: any shape, rescaled to the window's unit.
        width: at least 1.
        level: centre.

    Returns:
        float32 in [0, 1], of the same shape.

    Raises:
        ValueError: the width is below 1.
    """
    copy = torch.as_tensor(values).to(torch.float32, copy=True)
    return scale_(copy, *window_limits(width, level))


def scale_by_percentiles_(
    values: Tensor,
    choice: IntensityChoice,
    lower: float = LOWER,
    upper: float = UPPER,
    sample: Tensor | None = None,
) -> IntensityChoice:
    """Map two percentiles of the foreground to 0 and 1 and the background to 0, in place; values not finite become 0.

    Args:
        values: float32 of any shape, one image or volume.
        choice: the choice of percentiles.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
        sample: what the percentiles are taken of, when `values` are only a part; same layout of axes.

    Returns:
        the choice with the two limits, and sentences on a constant image (which becomes zeros) and on a background
        that is not the smallest value.

    Raises:
        ValueError: no value is finite.

    Example::

        values = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
        scale_by_percentiles_(values, choose_preset("MR"), 0, 100)  # values: 0, 0, 0, 1
    """
    whole = values if sample is None else sample
    background = find_background(whole)
    low, high = percentile_limits(whole, lower, upper, background)
    infinite = ~values.isfinite()
    if low == high:
        values.zero_()
        return choice.with_limits(low, high, "The image is constant; it is scaled to zeros.")
    warnings = []
    for level in background:
        if level <= low:
            continue  # becomes 0 by itself
        far = _is_far(level, low, high)
        if level > high and not far:
            continue  # a bright surround, such as a collimator's: white, as it was
        infinite |= (values == level) if far else _surround(values, level)
        warnings.append("A value that fills the border and was never measured lies above others: it is shown black.")
    scale_(values, low, high).masked_fill_(infinite, 0)
    return choice.with_limits(low, high, *warnings)


def percentile_limits(
    values: Tensor, lower: float = LOWER, upper: float = UPPER, background: Sequence[float] = ()
) -> tuple[float, float]:
    """The two percentiles of the foreground, which are to become 0 and 1.

    Foreground is every finite value above the smallest that is not among the background's. Beyond 8 million values the
    percentiles are those of every n-th one, so that memory stays bounded. When they coincide, minimum and maximum take
    their place.

    Args:
        values: any shape; contiguous, or it is copied.
        lower: percentile that maps to 0.
        upper: percentile that maps to 1.
        background: see :func:`find_background`.

    Returns:
        (low, high); equal if, and only if, all finite values are.

    Raises:
        ValueError: no value is finite.
    """
    flat = values.flatten()
    minimum, maximum = math.inf, -math.inf
    for start in range(0, len(flat), _CHUNK):
        chunk = _finite(flat[start : start + _CHUNK])
        if len(chunk):
            low, high = (float(extreme) for extreme in chunk.aminmax())
            minimum, maximum = min(minimum, low), max(maximum, high)
    if minimum > maximum:
        raise ValueError("All voxels are NaN or infinite: the image holds nothing to look at.")
    sample = _every_nth(flat, _SAMPLE)
    foreground = _finite(sample[sample > minimum])
    for level in background:
        foreground = foreground[foreground != level]
    if not len(foreground):
        return minimum, maximum
    # MONAI's percentile also works beyond the 16 million values at which torch.quantile gives up.
    low, high = torch.as_tensor(percentile(foreground, [lower, upper])).tolist()
    return (low, high) if low < high else (minimum, maximum)


def find_background(values: Tensor) -> tuple[float, ...]:
    """The values of an image that were put there and not measured, from the outside inwards; often none.

    Measured values are spread; one that is far more frequent than all of them and fills the border of the image is its
    background, wherever it lies among them: padding, or the 0 that normalisation leaves around a z-scored head. Behind
    it there may be another: a value that fills the border of what remains, and lies so far from the rest that beside
    it the rest would lose more than half of its contrast.

    The smallest value of an image needs not be found: :func:`percentile_limits` leaves it out anyway.

    Args:
        values: one image or volume, any number of axes.

    Returns:
        at most four values.

    Example::

        find_background(z_scored_head)  # (0.0,)
    """
    counted = _finite(_every_nth(values.flatten(), _LEVELS_SAMPLE)).cpu().numpy()
    put_there = _frequent_levels(counted)
    found: list[float] = []
    while len(found) < min(len(put_there), _MOST_LEVELS):
        border = _border(values, found)
        if not len(border):
            break
        levels, counts = np.unique(border, return_counts=True)
        level = float(levels[counts.argmax()])
        if level not in put_there or counts.max() < _OF_BORDER * len(border):
            break
        if found:
            rest = counted[~np.isin(counted, [*found, level])]
            if not len(rest) or not _is_far(level, *np.percentile(rest, [LOWER, UPPER]).tolist()):
                break
        found.append(level)
    return tuple(found)


def _frequent_levels(values: npt.NDArray[np.float32]) -> set[float]:
    """Values that are far more frequent than the many that were measured."""
    levels, counts = np.unique(values, return_counts=True)
    frequent = counts >= _SHARE * len(values)
    if not frequent.any() or np.count_nonzero(~frequent) < _MEASURED:
        return set()
    return set(levels[frequent & (counts >= _TIMES * counts[~frequent].max())].tolist())


def _is_far(level: float, low: float, high: float) -> bool:
    """Whether a range that has to hold a value, too, would leave less than half of its own to what it held before."""
    return max(low - level, level - high) > high - low


def _border(values: Tensor, known: Sequence[float]) -> npt.NDArray[np.float32]:
    """Finite values on the faces of the smallest box that holds all but the known background, without that one."""
    inner = values.squeeze()
    if known:
        other = values.squeeze().isfinite()
        for level in known:
            other &= inner != level
        for axis in range(inner.ndim):
            others = [dim for dim in range(inner.ndim) if dim != axis]
            filled = (other.amax(dim=others) if others else other).nonzero().flatten()
            if not len(filled):
                return np.empty(0, np.float32)
            first, count = int(filled[0]), int(filled[-1] - filled[0]) + 1
            inner, other = inner.narrow(axis, first, count), other.narrow(axis, first, count)
    faces = [inner.select(axis, side).flatten() for axis, side in product(range(inner.ndim), (0, -1))]
    border = np.concatenate([_finite(_every_nth(face, _LEVELS_SAMPLE)).cpu().numpy() for face in faces])
    return border[~np.isin(border, known)]


def _surround(values: Tensor, level: float) -> Tensor:
    """Where a value within the range of the measured ones is background.

    Where values repeat, as whole numbers do, tissue can have this one by chance, unless it lies between their steps:
    then only large regions that reach the border count.
    """
    mask = values == level
    measured = _finite(_every_nth(values.flatten(), _LEVELS_SAMPLE))
    measured = measured[measured != level]
    levels = np.unique(measured.cpu().numpy())
    place = int(np.searchsorted(levels, level))
    steps = np.diff(levels[max(place - _STEPS, 0) : place + _STEPS])
    between = levels[place] - levels[place - 1] < 1.5 * np.median(steps) if 0 < place < len(levels) else True
    if between or len(measured) < 2 * len(levels):
        return mask
    labels, _ = ndimage.label(mask.squeeze().cpu().numpy())
    faces = [np.unique(np.take(labels, side, axis)) for axis, side in product(range(labels.ndim), (0, -1))]
    large = np.flatnonzero(np.bincount(labels.ravel()) >= _SHARE * int(mask.sum()))
    outside = np.intersect1d(np.concatenate(faces), large[large > 0])
    return torch.from_numpy(np.isin(labels, outside)).reshape(mask.shape).to(mask.device)


def _every_nth(flat: Tensor, most: int) -> Tensor:
    # An odd stride, since an even one could miss every second column.
    return flat if len(flat) <= most else flat[:: -(-len(flat) // most) | 1]


def _finite(values: Tensor) -> Tensor:
    finite = values.isfinite()
    return values if finite.all() else values[finite]
