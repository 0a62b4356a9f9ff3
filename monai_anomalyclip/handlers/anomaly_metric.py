# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Attach an anomaly metric to MONAI's engines: per class, and without images whose mask is unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from ignite.engine import Engine
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import IgniteMetricHandler
from torch import Tensor

from monai_anomalyclip.metrics import (
    AUPROMetric,
    ImageAPMetric,
    ImageAUROCMetric,
    PixelAPMetric,
    PixelAUROCMetric,
    RegionRecallMetric,
)
from monai_anomalyclip.metrics.anomaly_metric import AnomalyMetric, PerClassMetric
from monai_anomalyclip.metrics.aupro import COCO_SIZES

__all__ = ["AUPRO", "AnomalyMetricHandler", "ImageAP", "ImageAUROC", "PixelAP", "PixelAUROC", "RegionRecall"]


class AnomalyMetricHandler(IgniteMetricHandler):
    """Computes a metric over everything that an evaluator sees in an epoch.

    ``engine.state.metrics[name]`` is the value; with ``classes`` it is the mean over classes, and
    ``engine.state.metrics["name/class"]`` is the value of each. Both are NaN, with one warning, where undefined.

    Args:
        metric: what to compute.
        output_transform: gives predictions and targets from ``engine.state.output``, tensors or lists, e.g.
            ``from_engine(["pred_anomaly_map", "label_label"])``; as a third, if wanted, whether each item's target is
            known (``"label_has_label"``): the others are left out.
        classes: gives the class of each item from ``engine.state.batch``, e.g. ``from_engine("class")``; None for all
            items together.
    """

    def __init__(
        self,
        metric: AnomalyMetric,
        output_transform: Callable[..., Any] = lambda x: x,
        classes: Callable[..., Any] | None = None,
    ) -> None:
        self.classes = classes
        self._class_names: list[str] | None = None
        super().__init__(
            metric_fn=metric if classes is None else PerClassMetric(metric),
            output_transform=output_transform,
            save_details=False,
        )

    def iteration_completed(self, engine: Engine) -> None:
        """Add what the engine has put out; a whole batch at a time, where ignite would unroll lists."""
        if self.classes is not None:
            names = self.classes(engine.state.batch)
            if isinstance(names, tuple) and len(names) == 1:  # from_engine on a batch that is not decollated
                (names,) = names
            self._class_names = [names] if isinstance(names, str) else list(names)
        self.update(self._output_transform(engine.state.output))

    @reinit__is_reduced  # type: ignore[untyped-decorator]  # ignite's, without types
    def update(self, output: Sequence[Any]) -> None:
        """Add predictions and targets, and, as a third, which of the targets are known.

        Raises:
            ValueError: other than two or three.
        """
        if len(output) not in (2, 3):
            raise ValueError(f"output_transform must give predictions, targets and maybe has_label, got {len(output)}.")
        y_pred, y = _tensors(output[0]), _tensors(output[1])
        names = self._class_names
        if len(output) == 3:
            known = [index for index, flag in enumerate(output[2]) if bool(flag)]
            y_pred, y = _chosen(y_pred, known), _chosen(y, known)
            names = None if names is None else [names[index] for index in known]
        if not len(y_pred):
            return
        if self.classes is None:
            self.metric_fn(y_pred, y)
        else:
            self.metric_fn(y_pred, y, names)

    def completed(self, engine: Engine, name: str) -> None:
        """Put the value and its details into ``engine.state.metrics``."""
        super().completed(engine, name)
        for part, value in self.metric_fn.details().items():
            engine.state.metrics[f"{name}/{part}"] = value


def _tensors(items: Tensor | Sequence[Any]) -> Tensor | list[Tensor]:
    """Numbers, as decollated labels may be, become tensors."""
    return items if isinstance(items, Tensor) else [torch.as_tensor(item) for item in items]


def _chosen(items: Tensor | list[Tensor], indices: list[int]) -> Tensor | list[Tensor]:
    if isinstance(items, Tensor):
        return items[torch.tensor(indices, dtype=torch.long, device=items.device)]
    return [items[index] for index in indices]


class AUPRO(AnomalyMetricHandler):
    """Computes the area under the per-region overlap curve over the validation set.

    Args:
        output_transform: gives (maps, masks) from ``engine.state.output``; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.
        classes: gives the class of each item, for a value per class and their mean.
        method: "exact", "histogram" for constant memory, or "thresholds_200" for comparison with published PRO.
        fpr_limit: up to which false positive rate the curve counts, in (0, 1].

    Example::

        maps_and_masks = from_engine(["pred_anomaly_map", "label_label"])
        AUPRO(maps_and_masks, classes=from_engine("class")).attach(evaluator, "pixel_aupro")
    """

    def __init__(
        self,
        output_transform: Callable[..., Any] = lambda x: x,
        classes: Callable[..., Any] | None = None,
        method: Literal["exact", "thresholds_200", "histogram"] = "exact",
        fpr_limit: float = 0.3,
    ) -> None:
        super().__init__(AUPROMetric(method, fpr_limit), output_transform, classes)


class PixelAUROC(AnomalyMetricHandler):
    """Computes the AUROC over all pixels of the validation set.

    Args:
        output_transform: gives (maps, masks) from ``engine.state.output``, e.g.
            ``from_engine(["anomaly_map", "label"])``; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.
        classes: gives the class of each item, for a value per class and their mean.
        method: "exact", or "histogram" for constant memory.

    Example::

        PixelAUROC(from_engine(["pred_anomaly_map", "label_label"])).attach(evaluator, "pixel_auroc")
    """

    metric: ClassVar[type[PixelAUROCMetric | PixelAPMetric]] = PixelAUROCMetric

    def __init__(
        self,
        output_transform: Callable[..., Any] = lambda x: x,
        classes: Callable[..., Any] | None = None,
        method: Literal["exact", "histogram"] = "exact",
    ) -> None:
        super().__init__(self.metric(method), output_transform, classes)


class PixelAP(PixelAUROC):
    """Computes the average precision over all pixels of the validation set; arguments as for :class:`PixelAUROC`.

    Example::

        PixelAP(from_engine(["pred_anomaly_map", "label_label"])).attach(evaluator, "pixel_ap")
    """

    metric = PixelAPMetric


class ImageAUROC(AnomalyMetricHandler):
    """Computes the AUROC of the images' anomaly scores.

    Unlike MONAI's ROCAUC it knows classes, and an undefined value says why.

    Args:
        output_transform: gives (scores, labels) from ``engine.state.output``, e.g.
            ``from_engine(["pred_anomaly_score", "label_image_label"])``.
        classes: gives the class of each item, for a value per class and their mean; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.

    Example::

        ImageAUROC(from_engine(["pred_anomaly_score", "label_image_label"])).attach(evaluator, "image_auroc")
    """

    metric: ClassVar[type[ImageAUROCMetric | ImageAPMetric]] = ImageAUROCMetric

    def __init__(
        self, output_transform: Callable[..., Any] = lambda x: x, classes: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(self.metric(), output_transform, classes)


class ImageAP(ImageAUROC):
    """Computes the average precision of the images' anomaly scores; arguments as for :class:`ImageAUROC`.

    Example::

        ImageAP(from_engine(["pred_anomaly_score", "label_image_label"])).attach(evaluator, "image_ap")
    """

    metric = ImageAPMetric


class RegionRecall(AnomalyMetricHandler):
    """Computes the share of anomalous regions that are found, over all and by size.

    ``engine.state.metrics["name/below 1024 px"]`` and so on hold the recall of a size, ``"name/regions below 1024 px"``
    how many there are; with ``classes`` the details are those of the classes instead.

    Args:
        output_transform: gives (maps, masks) from ``engine.state.output``; see
            :class:`~monai_anomalyclip.handlers.anomaly_metric.AnomalyMetricHandler`.
        classes: gives the class of each item, for a value per class and their mean.
        threshold: of the maps.
        sizes: areas in pixels that divide the regions into classes of sizes, ascending.
        overlap: share of a region's pixels that must reach the threshold; 0 stands for a single pixel.

    Example::

        RegionRecall(from_engine(["pred_anomaly_map", "label_label"]), threshold=0.3).attach(evaluator, "regions")
    """

    def __init__(
        self,
        output_transform: Callable[..., Any] = lambda x: x,
        classes: Callable[..., Any] | None = None,
        threshold: float = 0.5,
        sizes: Sequence[int] = COCO_SIZES,
        overlap: float = 0.0,
    ) -> None:
        super().__init__(RegionRecallMetric(threshold, sizes, overlap), output_transform, classes)
