# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals by resampling images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from torch import Tensor

from monai_anomalyclip.metrics.pixel_metric import label_regions, numpy_maps_and_masks
from monai_anomalyclip.metrics.ranking import TiedGroups, aupro, auroc, average_precision

__all__ = ["Interval", "bootstrap_maps", "bootstrap_scores"]

FloatArray = npt.NDArray[np.float64]
_AT_ONCE = 64  # resamples


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval.

    Attributes:
        value: over all images; in binned maps (see :func:`bootstrap_maps`).
        low: lower end.
        high: upper end.
        level: e.g. 0.95.
        resamples: how many were defined; those of one class are left out.
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int


@dataclass(frozen=True)
class _Counts:
    """Per image (rows) and score, ascending (columns): normal and anomalous pixels, and shares of regions.

    NumPy arrays, or sparse ones of SciPy.
    """

    normal: Any
    anomalous: Any
    share: Any

    def value(self, weights: FloatArray, metric: str, fpr_limit: float) -> FloatArray:
        """The metric with every image counted as often as the weights (resamples, images) say, (resamples,)."""
        normal, anomalous, share = ((weights @ part)[:, ::-1] for part in (self.normal, self.anomalous, self.share))
        group = TiedGroups(
            np.empty(0),
            np.cumsum(normal, axis=-1) - normal,
            normal,
            np.cumsum(anomalous, axis=-1) - anomalous,
            anomalous,
            share,
        )
        if metric == "aupro":
            return aupro([group], normal.sum(axis=-1), fpr_limit)
        if metric == "auroc":
            return auroc([group], normal.sum(axis=-1))
        return np.where(normal.any(axis=-1), average_precision([group]), np.nan)


def bootstrap_scores(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: Literal["auroc", "ap"] = "auroc",
    *,
    classes: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of image AUROC or AP.

    Args:
        scores: (n,).
        labels: (n,), 0 normal and 1 anomalous.
        metric: "auroc" or "ap".
        classes: (n,); for the mean over classes, each of which is resampled by itself. None for all images together.
        resamples: number of times that n images are drawn with replacement.
        level: of the interval, in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: an option out of range, or arrays that do not fit.
    """
    values, anomalous = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    if values.ndim != 1 or values.shape != anomalous.shape:
        raise ValueError(f"Scores and labels must both have shape (n,), got {values.shape} and {anomalous.shape}.")
    _check_finite([values])
    counts = [_count_scores(values[own], anomalous[own]) for own in _members(classes, len(values))]
    return _interval(counts, metric, ("auroc", "ap"), 1.0, resamples, level, seed)


def bootstrap_maps(
    maps: Tensor | Sequence[Tensor],
    masks: Tensor | Sequence[Tensor],
    metric: Literal["auroc", "ap", "aupro"] = "aupro",
    *,
    classes: Sequence[str] | None = None,
    fpr_limit: float = 0.3,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    bins: int = 2048,
) -> Interval:
    """Interval of a pixel metric; whole images are drawn, because the pixels of one are not independent.

    Scores are counted in bins that hold about as many pixels each (exact when there are no more distinct scores than
    bins), so that a resample is a weighted sum of the images' counts.

    Args:
        maps: (n, 1, H, W), or n maps (1, H, W) that may differ in size.
        masks: likewise, anomalous where above 0.5.
        metric: "auroc", "ap" or "aupro".
        classes: as for :func:`bootstrap_scores`.
        fpr_limit: of AUPRO.
        resamples: number of times that n images are drawn with replacement.
        level: of the interval, in (0, 1).
        seed: of the draws.
        bins: at least 2; memory is 24 bytes per bin and image.

    Raises:
        ValueError: an option out of range, or maps and masks that do not fit.
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}.")
    pairs = [numpy_maps_and_masks(a[None], b[None]) for a, b in zip(maps, masks, strict=True)]
    images = [(scores[0], mask[0]) for scores, mask in pairs]
    _check_finite([scores for scores, _ in images])
    counts = [_count_maps([images[index] for index in own], bins) for own in _members(classes, len(images))]
    return _interval(counts, metric, ("auroc", "ap", "aupro"), fpr_limit, resamples, level, seed)


def _members(classes: Sequence[str] | None, n_images: int) -> list[list[int]]:
    """The images of each class."""
    if not n_images:
        raise ValueError("There are no images to resample.")
    if classes is None:
        return [list(range(n_images))]
    if len(classes) != n_images:
        raise ValueError(f"{n_images} images and {len(classes)} classes do not fit.")
    return [[index for index, other in enumerate(classes) if other == name] for name in sorted(set(classes))]


def _count_scores(scores: FloatArray, anomalous: npt.NDArray[np.bool_]) -> _Counts:
    distinct, column = np.unique(scores, return_inverse=True)
    shape = (len(scores), len(distinct))
    # Sparse: an image has one score, and a full table of many images would not fit into memory.
    place = np.arange(len(scores)), column
    normal, share = csr_array((1.0 - anomalous, place), shape=shape), csr_array(shape)
    return _Counts(normal, csr_array((anomalous.astype(np.float64), place), shape=shape), share)


def _count_maps(images: list[tuple[Any, Any]], bins: int) -> _Counts:
    edges = _edges(images, bins)
    counts = np.zeros((3, len(images), len(edges)))
    for row, (scores, mask) in enumerate(images):
        column = np.searchsorted(edges, scores, side="right") - 1
        numbers, areas = label_regions(mask)
        counts[0, row] = np.bincount(column[~mask], minlength=len(edges))
        counts[1, row] = np.bincount(column[mask], minlength=len(edges))
        counts[2, row] = np.bincount(column[mask], 1 / areas[numbers], minlength=len(edges))
    return _Counts(*counts)


def _check_finite(arrays: Sequence[npt.NDArray[Any]]) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("Not all of the scores are finite numbers.")


def _edges(images: list[tuple[Any, Any]], bins: int) -> npt.NDArray[np.float32]:
    """Lowest scores of bins: all distinct scores, or half of them at quantiles of the anomalous pixels' scores."""
    normal = np.concatenate([scores[~mask] for scores, mask in images])
    anomalous = np.concatenate([scores[mask] for scores, mask in images])
    distinct = np.unique(np.concatenate([normal, anomalous]))
    if len(distinct) <= bins:
        return distinct
    ranks = np.linspace(0, 1, bins // 2, endpoint=False)
    chosen = [np.quantile(part, ranks, method="inverted_cdf") for part in (normal, anomalous) if len(part)]
    return np.unique(np.concatenate([distinct[:1], *chosen]))


def _interval(
    classes: list[_Counts],
    metric: str,
    known: tuple[str, ...],
    fpr_limit: float,
    resamples: int,
    level: float,
    seed: int,
) -> Interval:
    if metric not in known:
        raise ValueError(f"metric={metric!r} is not one of {', '.join(map(repr, known))}.")
    if not 0 < fpr_limit <= 1 or not 0 < level < 1 or resamples < 1:
        raise ValueError(
            f"fpr_limit must lie in (0, 1], level in (0, 1) and resamples be at least 1, got {fpr_limit}, {level} and "
            f"{resamples}."
        )
    random = np.random.default_rng(seed)
    value = _mean([counts.value(np.ones((1, counts.normal.shape[0])), metric, fpr_limit) for counts in classes])
    values = _mean([_draws(counts, metric, fpr_limit, resamples, random) for counts in classes])
    values = values[~np.isnan(values)]
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(values, ends) if len(values) else (np.nan, np.nan)
    return Interval(float(value[0]), float(low), float(high), level, len(values))


def _draws(
    counts: _Counts, metric: str, fpr_limit: float, resamples: int, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The metric of each resample, (resamples,); NaN where it is undefined."""
    n_images = counts.normal.shape[0]
    drawn: list[FloatArray] = []
    for start in range(0, resamples, _AT_ONCE):
        number = min(_AT_ONCE, resamples - start)
        weights = random.multinomial(n_images, np.full(n_images, 1 / n_images), size=number).astype(np.float64)
        drawn.append(counts.value(weights, metric, fpr_limit))
    return np.concatenate(drawn)


def _mean(classes: list[FloatArray]) -> FloatArray:
    """The mean over the classes that are defined, else NaN."""
    values = np.stack(classes)
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    mean: FloatArray = np.where(defined, values, 0).sum(axis=0) / np.where(count, count, np.nan)
    return mean
