# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Calibrate thresholds on a validation set and keep them beside the prompts."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics.thresholds import ImageThresholdMetric, PixelThresholdMetric, Rule
from monai_anomalyclip.networks.calibrated_thresholds import CalibratedThresholds, thresholds_path
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest

__all__ = ["ThresholdCalibration"]

logger = logging.getLogger(__name__)


class ThresholdCalibration:
    """Writes ``model.thresholds.json`` beside ``model.pt``, for inference with ``--threshold calibrated``.

    Both thresholds are also metrics of the engine: ``pixel_threshold`` and ``image_threshold``. The maps must be those
    that inference thresholds: smoothed as there, in [0, 1]. Attach it on every process; the first one writes.

    Args:
        prompts: file of the prompts that the evaluator uses, or of what else it was made with.
        maps: gives (maps, masks) from ``engine.state.output``, and, as a third, whether the masks are known.
        scores: gives (scores, labels) likewise.
        rule: "best_f1", or "fpr" for the lowest thresholds that at most ``fpr`` of the normal pixels or images reach.
        fpr: false positive rate, in [0, 1).
        digest: what the thresholds belong to; by default the prompts, by their tensors.

    Raises:
        ValueError: an unknown rule, or a rate out of range.

    Example::

        ThresholdCalibration(
            "models/model.pt",
            from_engine(["pred_anomaly_map", "label_label"]),
            from_engine(["pred_anomaly_score", "label_image_label"]),
        ).attach(evaluator)
    """

    def __init__(
        self,
        prompts: str | Path,
        maps: Callable[..., Any],
        scores: Callable[..., Any],
        rule: Rule = "best_f1",
        fpr: float = 0.05,
        digest: str | None = None,
    ) -> None:
        self.prompts = Path(prompts)
        self.digest = digest
        self.method = rule if rule == "best_f1" else f"fpr={fpr:g}"
        self._metrics = {
            "pixel_threshold": AnomalyMetricHandler(PixelThresholdMetric(rule, fpr), maps),
            "image_threshold": AnomalyMetricHandler(ImageThresholdMetric(rule, fpr), scores),
        }

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        for name, metric in self._metrics.items():
            metric.attach(engine, name)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _save(self, engine: Engine) -> None:
        if idist.get_rank() > 0:
            return
        values = {name: _reachable(name, float(engine.state.metrics[name])) for name in self._metrics}
        calibrated = CalibratedThresholds(
            **{name: None if math.isnan(value) else value for name, value in values.items()},
            method=self.method,
            n=len(self._metrics["image_threshold"].metric_fn),
            prompts_sha256=prompts_digest(self.prompts) if self.digest is None else self.digest,
        )
        path = thresholds_path(self.prompts)
        path.parent.mkdir(parents=True, exist_ok=True)  # of a method that learns nothing there are no prompts
        calibrated.save(path)
        listed = ", ".join(f"{name.partition('_')[0]} {value:.4f}" for name, value in values.items())
        logger.info(f"Thresholds ({self.method}, {calibrated.n} images): {listed}; written to {path.name}.")


def _reachable(name: str, threshold: float) -> float:
    """The threshold, or NaN where only one above 1, which nothing reaches, would keep to the rate."""
    if threshold > 1:
        logger.warning(f"Too much that is normal has the highest value, 1: there is no {name.replace('_', ' ')}.")
        return math.nan
    return threshold
