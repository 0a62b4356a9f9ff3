# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of the ROC and PRO curves behind an evaluator's metrics."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics.anomaly_metric import PerClassMetric
from monai_anomalyclip.metrics.aupro import AUPROMetric
from monai_anomalyclip.metrics.curves import plot_curves, pro_curve, roc_curve
from monai_anomalyclip.metrics.image_level import ImageAUROCMetric
from monai_anomalyclip.metrics.pixel_metric import PixelAUROCMetric

__all__ = ["CurvePlots"]

logger = logging.getLogger(__name__)


class CurvePlots:
    """Writes ``NAME_curve.png`` for each of the given metrics when an epoch of the evaluator is completed.

    AUPRO is drawn as a PRO curve, AUROC as a ROC curve, one curve per class where the metric has classes. A class for
    which the metric is undefined has no curve. The first process writes.

    Args:
        output_dir: folder of the pictures.
        metrics: handlers of image AUROC, pixel AUROC or AUPRO, by the name that they have in the same evaluator. In a
            configuration: ``{"pixel_aupro": "@validate#additional_metrics#pixel_aupro"}``.

    Raises:
        ValueError: a metric without such a curve.

    Example::

        auroc = PixelAUROC(from_engine(["pred_anomaly_map", "label_label"]))
        CurvePlots("runs/evaluation", {"pixel_auroc": auroc}).attach(evaluator)
    """

    def __init__(self, output_dir: str | Path, metrics: Mapping[str, AnomalyMetricHandler]) -> None:
        self.output_dir = Path(output_dir)
        self.metrics = dict(metrics)
        for name, handler in metrics.items():
            metric = getattr(handler.metric_fn, "metric", handler.metric_fn)
            if not isinstance(metric, AUPROMetric | ImageAUROCMetric | PixelAUROCMetric):
                raise ValueError(f"{name!r} ({type(metric).__name__}) is not the area of a ROC or PRO curve.")

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, after its metrics (MONAI's evaluators attach those first)."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw all curves."""
        if idist.get_rank() > 0:
            return
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, handler in self.metrics.items():
            metric = handler.metric_fn
            # Sorted, because each process meets the classes in an order of its own.
            parts = dict(sorted(metric.metrics.items())) if isinstance(metric, PerClassMetric) else {"": metric}
            curves, limit = {}, None
            for part, one in parts.items():
                value = engine.state.metrics[f"{name}/{part}" if part else name]
                if math.isnan(value):
                    continue
                # What all processes gave lies ready since the metric was computed.
                ranked = one.ranked()
                limit = getattr(one, "fpr_limit", None)
                curves[f"{part or one.title} ({value:.3f})"] = (roc_curve if limit is None else pro_curve)(ranked)
            if not curves:
                logger.warning(f"{name} is undefined, so it has no curve.")
                continue
            plot_curves(
                self.output_dir / f"{name}_curve.png",
                curves,
                "ROC" if limit is None else "PRO",
                fpr_limit=limit,
                title=f"{metric.title}: mean {engine.state.metrics[name]:.3f}" if len(parts) > 1 else metric.title,
            )
