# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Overlap and recall by region: area under the per-region overlap curve (AUPRO), three ways, and the regions found."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from monai_anomalyclip.metrics.anomaly_metric import AnomalyMetric
from monai_anomalyclip.metrics.pixel_metric import DEFAULT_BINS, PixelMetric, label_regions, numpy_maps_and_masks
from monai_anomalyclip.metrics.ranking import Ranked, Ranking, aupro, aupro_error

__all__ = [
    "COCO_SIZES",
    "THRESHOLDS",
    "AUPROMetric",
    "RegionRecallMetric",
    "published_pro",
]


class AUPROMetric(PixelMetric):
    """Mean share of each anomalous region that is found, against the share of normal pixels that is flagged.

    Regions are 8-connected; every region counts the same, whatever its area and image. A map that is the same
    everywhere has ``fpr_limit / 2``, a perfect one 1.

    See :class:`~monai_anomalyclip.metrics.pixel_metric.PixelMetric` for the call.

    Args:
        method: "exact" is MVTec's definition (see :func:`~monai_anomalyclip.metrics.ranking.aupro`);
            "histogram" is the same in constant memory; "thresholds_200" is the published code's (see
            :func:`~monai_anomalyclip.metrics.aupro.published_pro`), to be compared with published PRO only.
        fpr_limit: up to which false positive rate the curve counts, in (0, 1].
        bins: of the histogram, a power of two from 2**16 to 2**24.

    Raises:
        ValueError: an unknown method, or a limit or number of bins out of range.

    Example:
        >>> metric = AUPROMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[0.1, 0.2], [0.7, 0.9]]]]), y=torch.tensor([[[[0, 0], [0, 1]]]]))
        >>> float(metric.aggregate())
        1.0
    """

    title: ClassVar[str] = "AUPRO"
    needs_regions: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("exact", "thresholds_200", "histogram")

    def __init__(
        self,
        method: Literal["exact", "thresholds_200", "histogram"] = "exact",
        fpr_limit: float = 0.3,
        *,
        bins: int = DEFAULT_BINS,
    ) -> None:
        if not 0 < fpr_limit <= 1:
            raise ValueError(f"fpr_limit must lie in (0, 1], got {fpr_limit}.")
        self.fpr_limit = float(fpr_limit)
        super().__init__(method, bins=bins)  # type: ignore[arg-type]  # one more than the base class has

    def compute(self) -> tuple[float, str | None]:
        ranked = self.ranked()
        undefined = self.undefined(ranked)
        if undefined:
            return math.nan, undefined
        if self.method == "thresholds_200":
            assert isinstance(ranked, Ranking)
            value = published_pro(ranked, self.fpr_limit)
            few = f"fewer than two of the {THRESHOLDS} thresholds differ in rate below {self.fpr_limit:g}"
            return (math.nan, few) if value is None else (value, None)
        return float(aupro(ranked.groups(), ranked.n_normal, self.fpr_limit)), None

    def undefined(self, ranked: Ranked) -> str | None:
        if not ranked.n_anomalous:
            return "no mask has an anomalous region"
        return "there is no normal pixel" if not ranked.n_normal else super().undefined(ranked)

    def error_bound(self) -> float:
        """How far the histogram's value is from the exact one at most; 0 for the exact method.

        Raises:
            ValueError: for "thresholds_200", whose distance from the exact value has no bound.
        """
        if self.method == "thresholds_200":
            raise ValueError("'thresholds_200' is another definition: its distance from the exact value has no bound.")
        if self.method == "exact":
            return 0.0
        ranked = self.ranked()
        return float(aupro_error(ranked.groups(), ranked.n_normal, self.fpr_limit))


THRESHOLDS = 200


def published_pro(ranking: Ranking, fpr_limit: float = 0.3) -> float | None:
    """Area under 200 points of the PRO curve below a false positive rate, stretched to the rates that were met.

    The definition of the authors' code (and of the codes it stems from and that stem from it): thresholds are equally
    spaced between the lowest and the highest score, a pixel is flagged when it is above; points whose rate is below
    the limit are kept, their rates are rescaled to [0, 1] by their own minimum and maximum, and the area is that of
    the trapezoids. It depends on the scale of the scores and can be off by more than 0.1 from the exact value.

    Args:
        ranking: with the areas of the regions; finite, with normal and anomalous pixels.
        fpr_limit: in (0, 1].

    Returns:
        the area in [0, 1], or None where fewer than two different rates are below the limit.
    """
    lowest, highest = ranking.extremes
    step = (highest - lowest) / THRESHOLDS
    if not step > 0:
        return None
    thresholds = np.arange(lowest, highest, step)
    rate = 1 - np.searchsorted(ranking.normal, thresholds, side="right") / ranking.n_normal
    found = np.zeros(len(thresholds) + 1)  # shares of regions by how many of the thresholds flag them
    for group in ranking.groups():
        flagged_by = np.searchsorted(thresholds, group.score, side="left")
        found += np.bincount(flagged_by, group.share, minlength=len(found))
    overlap = found[::-1].cumsum()[::-1][1:] / found.sum()
    kept = rate < fpr_limit
    rate, overlap = rate[kept], overlap[kept]
    if len(rate) < 2 or rate.min() == rate.max():
        return None
    from sklearn.metrics import auc  # slow to import, and a machine lent for a check need not have it

    return float(auc((rate - rate.min()) / (rate.max() - rate.min()), overlap))


COCO_SIZES = (32**2, 96**2)


class RegionRecallMetric(AnomalyMetric):
    """Share of the 8-connected anomalous regions that are found; every region counts the same.

    A region is found when the map reaches the threshold in one of its pixels, or in a given share of them. Called as
    :class:`~monai_anomalyclip.metrics.pixel_metric.PixelMetric`.

    Args:
        threshold: of the maps.
        sizes: areas in pixels that divide the regions into classes, ascending; default is COCO's small, medium and
            large (below 32**2, below 96**2, the rest).
        overlap: share of a region's pixels that must reach the threshold, in [0, 1]; 0 stands for a single pixel.

    Raises:
        ValueError: sizes are not positive and ascending, or the overlap is out of range.

    Example:
        >>> metric = RegionRecallMetric(threshold=0.5)
        >>> _ = metric(y_pred=torch.tensor([[[[0.1, 0.2], [0.7, 0.9]]]]), y=torch.tensor([[[[0, 0], [0, 1]]]]))
        >>> float(metric.aggregate())
        1.0
    """

    title: ClassVar[str] = "Region recall"

    def __init__(self, threshold: float = 0.5, sizes: Sequence[int] = COCO_SIZES, overlap: float = 0.0) -> None:
        edges = [0, *sizes]
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise ValueError(f"sizes must be positive and ascending areas in pixels, got {list(sizes)}.")
        if not 0 <= overlap <= 1:
            raise ValueError(f"overlap must lie in [0, 1], got {overlap}.")
        self.threshold = threshold
        self.sizes = tuple(sizes)
        self.overlap = overlap
        self._details: dict[str, float] = {}
        super().__init__()

    def buffer_dtypes(self) -> tuple[torch.dtype, ...]:
        return (torch.int64, torch.int64, torch.int64)

    def compute(self) -> tuple[float, str | None]:
        area, reached = (tensor.numpy() for tensor in self.pooled()[1:])
        found = reached >= np.maximum(1, np.ceil(self.overlap * area - 1e-9))
        size = np.searchsorted(self.sizes, area, side="right")
        self._details = {}
        for index, name in enumerate(self._names()):
            own = found[size == index]
            self._details[name] = float(own.mean()) if len(own) else math.nan
            self._details[f"regions {name}"] = float(len(own))
        return (float(found.mean()), None) if len(found) else (math.nan, "no mask has an anomalous region")

    def details(self) -> Mapping[str, float]:
        """Recall and number of regions for each class of sizes, once the metric is aggregated; NaN where none is."""
        return self._details

    def _names(self) -> list[str]:
        if not self.sizes:
            return ["all sizes"]
        between = [f"{low} to {high - 1} px" for low, high in itertools.pairwise(self.sizes)]
        return [f"below {self.sizes[0]} px", *between, f"from {self.sizes[-1]} px"]

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        maps, masks = numpy_maps_and_masks(y_pred, y)
        areas, reached = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for scores, mask in zip(maps, masks, strict=True):
            numbers, area = label_regions(mask)
            areas.append(area)
            reached.append(np.bincount(numbers[scores[mask] >= np.float32(self.threshold)], minlength=len(area)))
        images = torch.tensor([len(maps)])  # so that images without regions also count as given
        return [images, *(torch.from_numpy(np.concatenate(parts)) for parts in (areas, reached))]
