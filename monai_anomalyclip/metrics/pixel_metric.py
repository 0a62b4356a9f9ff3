# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What pixel AUROC, pixel AP and AUPRO have in common: from maps and masks to pixels, ranked or counted in bins."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.utils import convert_to_tensor
from scipy import ndimage
from torch import Tensor

from monai_anomalyclip.metrics.anomaly_metric import AnomalyMetric
from monai_anomalyclip.metrics.ranking import (
    Ranked,
    Ranking,
    TiedGroups,
    auroc,
    auroc_error,
    average_precision,
    average_precision_error,
    from_ordered_bits,
    to_ordered_bits,
)

__all__ = [
    "DEFAULT_BINS",
    "PixelAPMetric",
    "PixelAUROCMetric",
    "PixelMetric",
    "ScoreHistogram",
    "label_regions",
    "numpy_maps_and_masks",
]

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def label_regions(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Find the 8-connected regions of a mask, as every published PRO does.

    Args:
        mask: (H, W), True where anomalous.

    Returns:
        the region's number, from 0, of every anomalous pixel in the order of ``mask[mask]``, (pixels,); and the area
        in pixels of every region, (regions,).
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.empty(0, np.int32), np.empty(0, np.int64)
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # most of a mask is normal
    labels, _ = ndimage.label(window, structure=_EIGHT_NEIGHBOURS)
    numbers = labels[window].astype(np.int32) - 1
    return numbers, np.bincount(numbers)


DEFAULT_BINS = 2**20


class PixelMetric(AnomalyMetric):
    """A metric of pixels, those of all images pooled.

    Called as ``metric(y_pred=maps, y=masks)`` with maps (B, 1, H, W) and masks (B, 1, H, W), anomalous where above
    0.5, on any device, or with lists of (1, H, W). Images may differ in size between calls and within a list: metrics
    on native sizes weight an image by its number of pixels. Maps are taken as float32.

    Args:
        method: "exact" keeps the pixels on the CPU, 4 bytes each (8 for an anomalous one of AUPRO); "histogram"
            counts them in bins, 8 bytes each for normal pixels, anomalous ones and AUPRO's shares, however many images
            come. A histogram's error is at most what :meth:`error_bound` says. Several processes exchange all of it.
        bins: of the histogram, a power of two from 2**16 to 2**24.

    Raises:
        ValueError: an unknown method, or another number of bins.
    """

    needs_regions: ClassVar[bool] = False
    methods: ClassVar[tuple[str, ...]] = ("exact", "histogram")

    def __init__(self, method: Literal["exact", "histogram"] = "exact", *, bins: int = DEFAULT_BINS) -> None:
        if method not in self.methods:
            raise ValueError(f"method={method!r} is not one of {', '.join(map(repr, self.methods))}.")
        check_bins(bins)
        self.method: str = method
        self.bins = bins
        super().__init__()

    @abstractmethod
    def error_bound(self) -> float:
        """How far the value of the histogram is from the exact one at most; 0 for the exact method."""

    def buffer_dtypes(self) -> tuple[torch.dtype, ...]:
        if self.method == "histogram":
            return (torch.int64, torch.int64, torch.float64)[: 3 if self.needs_regions else 2]
        return (torch.float32, torch.float32, torch.int32)[: 3 if self.needs_regions else 2]

    def ranked(self) -> Ranked:
        """The pixels of all images and processes in order of their scores.

        Raises:
            ValueError: nothing was given to the metric yet.
        """
        arrays = [tensor.numpy() for tensor in self.pooled()]
        return ScoreHistogram(*arrays) if self.method == "histogram" else Ranking(*arrays)

    def extend(self, *data: Any) -> None:
        """Keep the pixels of a batch, or count them."""
        if self.method != "histogram":
            super().extend(*data)
            return
        if self._buffers is None:
            # By numpy, because it leaves to the system the zeros that are never counted up.
            empty = [torch.empty(0, dtype=dtype).numpy().dtype for dtype in self._dtypes]
            self._buffers = [[torch.from_numpy(np.zeros(self.bins, dtype))] for dtype in empty]
        counts = ScoreHistogram(*(tensor.numpy() for (tensor,) in self._buffers))
        counts.add(*(tensor.numpy() for tensor in data))
        self._synced = False

    def undefined(self, ranked: Ranked) -> str | None:
        """Why no metric can be computed, or None."""
        if not ranked.n_normal or not ranked.n_anomalous:
            return "all pixels are of one class"
        return None if ranked.finite else "a map has values that are not finite"

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> list[Tensor]:
        maps, masks = numpy_maps_and_masks(y_pred, y)
        parts = [maps[~masks], maps[masks]]
        if self.needs_regions:
            regions = [label_regions(mask) for mask in masks]
            parts.append(np.concatenate([areas[numbers] for numbers, areas in regions]).astype(np.int32))
        return [torch.from_numpy(part) for part in parts]

    def _join(self, chunks: list[Tensor], dtype: torch.dtype) -> Tensor:
        if self.method != "histogram":
            return super()._join(chunks, dtype)
        if len(chunks) == 1:
            return chunks[0]
        return torch.stack(chunks).sum(dim=0) if chunks else torch.zeros(self.bins, dtype=dtype)


def numpy_maps_and_masks(y_pred: Tensor, y: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Maps (B, 1, H, W) as (B, H, W) float32 and masks as (B, H, W) bool, on the CPU.

    Raises:
        ValueError: other shapes.
    """
    if y is None or y_pred.shape != y.shape or y_pred.ndim != 4 or y_pred.shape[1] != 1:
        shapes = tuple(y_pred.shape), None if y is None else tuple(y.shape)
        raise ValueError(f"Maps and masks must both have shape (B, 1, H, W), got {shapes[0]} and {shapes[1]}.")
    maps = convert_to_tensor(y_pred, track_meta=False).detach()[:, 0].cpu().float().numpy()
    masks = convert_to_tensor(y, track_meta=False)[:, 0].cpu()
    # Whole numbers are not first made floating-point ones, which would take longer than the metric.
    return maps, (masks.float().numpy() > 0.5 if masks.is_floating_point() else masks.numpy() > 0)


class PixelAPMetric(PixelMetric):
    """Pixel-level average precision, all pixels of all images pooled (scikit-learn's definition).

    See :class:`~monai_anomalyclip.metrics.pixel_metric.PixelMetric` for the call and the arguments.

    Example:
        >>> metric = PixelAPMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[0.1, 0.2], [0.7, 0.9]]]]), y=torch.tensor([[[[0, 0], [0, 1]]]]))
        >>> float(metric.aggregate())
        1.0
    """

    title: ClassVar[str] = "Pixel AP"

    def compute(self) -> tuple[float, str | None]:
        ranked = self.ranked()
        undefined = self.undefined(ranked)
        return (math.nan, undefined) if undefined else (float(average_precision(ranked.groups())), None)

    def error_bound(self) -> float:
        return 0.0 if self.method == "exact" else float(average_precision_error(self.ranked().groups()))


class PixelAUROCMetric(PixelMetric):
    """Pixel-level AUROC, all pixels of all images pooled, as the paper reports it (scikit-learn's definition).

    See :class:`~monai_anomalyclip.metrics.pixel_metric.PixelMetric` for the call and the arguments.

    Example:
        >>> metric = PixelAUROCMetric()
        >>> _ = metric(y_pred=torch.tensor([[[[0.1, 0.2], [0.7, 0.9]]]]), y=torch.tensor([[[[0, 0], [0, 1]]]]))
        >>> float(metric.aggregate())
        1.0
    """

    title: ClassVar[str] = "Pixel AUROC"

    def compute(self) -> tuple[float, str | None]:
        ranked = self.ranked()
        undefined = self.undefined(ranked)
        return (math.nan, undefined) if undefined else (float(auroc(ranked.groups(), ranked.n_normal)), None)

    def error_bound(self) -> float:
        if self.method == "exact":
            return 0.0
        ranked = self.ranked()
        return float(auroc_error(ranked.groups(), ranked.n_normal))


_FEWEST, _MOST = 2**16, 2**24


class ScoreHistogram:
    """Counts of normal and of anomalous pixels, and the anomalous ones' shares of their regions, per bin.

    A bin holds the float32 numbers with the same upper bits, so no range has to be known: 2**20 bins divide every
    doubling of the score into 2048 bins (a relative width below 0.0005), 2**16 bins into 128.

    Args:
        normal: counts of normal pixels, (bins,) int64; added to in place, like the others.
        anomalous: counts of anomalous pixels, (bins,) int64.
        share: sums of 1 / (area of the pixel's region), (bins,) float64, or None.
    """

    def __init__(
        self,
        normal: npt.NDArray[np.int64],
        anomalous: npt.NDArray[np.int64],
        share: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.normal = normal
        self.anomalous = anomalous
        self.share = share
        self._shift = np.uint32(32 - check_bins(len(normal)))

    def add(
        self,
        normal: npt.NDArray[np.float32],
        anomalous: npt.NDArray[np.float32],
        area: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """Count pixels; the arrays are those of :class:`~monai_anomalyclip.metrics.ranking.Ranking`."""
        np.add.at(self.normal, self._bins(normal), 1)
        bins = self._bins(anomalous)
        np.add.at(self.anomalous, bins, 1)
        if self.share is not None and area is not None:
            np.add.at(self.share, bins, 1 / area.astype(np.float64))

    @property
    def n_normal(self) -> int:
        return int(self.normal.sum())

    @property
    def n_anomalous(self) -> int:
        return int(self.anomalous.sum())

    @property
    def finite(self) -> bool:
        lowest, highest = self._bins(np.array([-1, 1], np.float32) * np.finfo(np.float32).max)
        outside = [
            counts[part]
            for counts in (self.normal, self.anomalous)
            for part in (slice(lowest), slice(highest + 1, None))
        ]
        return not any(bool(part.any()) for part in outside)

    def groups(self) -> Iterator[TiedGroups]:
        used = np.flatnonzero(self.anomalous)[::-1]
        normal, anomalous = self.normal[used], self.anomalous[used]
        yield TiedGroups(
            from_ordered_bits(used.astype(np.uint32) << self._shift),
            self.n_normal - np.cumsum(self.normal)[used],
            normal,
            np.cumsum(anomalous) - anomalous,
            anomalous,
            None if self.share is None else self.share[used],
        )

    def _bins(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return (to_ordered_bits(scores) >> self._shift).astype(np.int64)


def check_bins(bins: int) -> int:
    """Return how many bits number so many bins.

    Raises:
        ValueError: not a power of two from 2**16 to 2**24.
    """
    bits = int(bins).bit_length() - 1
    if bins != 2**bits or not _FEWEST <= bins <= _MOST:
        raise ValueError(f"A histogram has 2**16 to 2**24 bins, and a power of two of them, not {bins}.")
    return bits
