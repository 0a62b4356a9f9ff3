# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Raw intensities to [0, 1], for every kind of file: windows, and percentiles of all but the background."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms.utils_pytorch_numpy_unification import percentile
from torch import Tensor

from monai_anomalyclip.transforms.image_background import (
    every_nth,
    finite,
    gather_,
    is_far,
    search_background,
    spread_levels,
    surround,
)
from monai_anomalyclip.transforms.intensity_presets import LOWER, UPPER, IntensityChoice, window_limits

__all__ = ["apply_window", "percentile_limits", "scale_", "scale_by_percentiles_"]

_CHUNK = 2**22
_SAMPLE = 2**23  # values that percentiles are taken of
_DOUBT = (
    "A value that was never measured touches the border and is shown gray: if it is background, set it to the smallest."
)


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
    spread = spread_levels(values if sample is None else sample)
    values = gather_(values, spread)
    whole = values if sample is None else gather_(sample.clone() if spread else sample, spread)
    background, doubt = search_background(whole)
    low, high = percentile_limits(whole, lower, upper, background)
    infinite = ~values.isfinite()
    if low == high:
        values.zero_()
        return choice.with_limits(low, high, "The image is constant; it is scaled to zeros.")
    warnings = [_DOUBT] if doubt else []
    for level in background:
        if level <= low:
            continue  # becomes 0 by itself
        far = is_far(level, low, high)
        if level > high and not far:
            continue  # a bright surround, such as a collimator's: white, as it was
        gathered = any(level == of for *_, of in spread)
        infinite |= (values == level) if far else surround(values, level, gathered)
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
        background: see :func:`~monai_anomalyclip.transforms.image_background.find_background`.

    Returns:
        (low, high); equal if, and only if, all finite values are.

    Raises:
        ValueError: no value is finite.
    """
    flat = values.flatten()
    minimum, maximum = math.inf, -math.inf
    for start in range(0, len(flat), _CHUNK):
        chunk = finite(flat[start : start + _CHUNK])
        if len(chunk):
            low, high = (float(extreme) for extreme in chunk.aminmax())
            minimum, maximum = min(minimum, low), max(maximum, high)
    if minimum > maximum:
        raise ValueError("All voxels are NaN or infinite: the image holds nothing to look at.")
    sample = every_nth(flat, _SAMPLE)
    foreground = finite(sample[sample > minimum])
    for level in background:
        foreground = foreground[foreground != level]
    if not len(foreground):
        return minimum, maximum
    # MONAI's percentile also works beyond the 16 million values at which torch.quantile gives up.
    low, high = torch.as_tensor(percentile(foreground, [lower, upper])).tolist()
    return (low, high) if low < high else (minimum, maximum)
