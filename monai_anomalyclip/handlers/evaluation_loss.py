# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of the loss over an evaluation's images."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys

__all__ = ["EvaluationLoss"]

_PER_IMAGE = "global"  # the other terms are of pixels, where the mask is known
_SUM = "total"  # its weights would depend on the loss


class EvaluationLoss:
    """Puts the loss terms of all images into ``engine.state.metrics``, as ``loss_global``, ``loss_focal`` and so on.

    The global term is the mean over images; the pixel terms (focal, both Dice), not weighted by lambda, are the mean
    over those whose mask is known. Unlike the means over batches that tuning reports they do not depend on how the
    images are shared out to batches and processes. NaN where there are no masks.

    The evaluator's network must give the logits beside the prediction (``PrepareAnomalyBatch("all")``), and its
    targets ``has_label``.

    Args:
        loss: with ``last_terms``, as :class:`~monai_anomalyclip.losses.GlocalLoss`.
    """

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self._sums: dict[str, float] = {}
        self._images = 0.0
        self._masks = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to one of MONAI's evaluators, before what writes its metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _reset(self, _: Engine) -> None:
        self._sums, self._images, self._masks = {}, 0.0, 0.0

    def _add(self, engine: Engine) -> None:
        output = engine.state.output  # of the whole batch, on its device: it is taken apart later
        target = output[CommonKeys.LABEL]
        with torch.no_grad():
            self.loss(output[CommonKeys.PRED], target)
        images, masks = len(target["image_label"]), float(target["has_label"].sum())
        self._images += images
        self._masks += masks
        for name, term in self.loss.last_terms.items():
            if name != _SUM:
                count = images if name == _PER_IMAGE else masks
                self._sums[name] = self._sums.get(name, 0.0) + float(term) * count

    def _report(self, engine: Engine) -> None:
        totals = torch.tensor([*self._sums.values(), self._images, self._masks], dtype=torch.float64)
        if idist.get_world_size() > 1:
            totals = idist.all_reduce(totals)
        *sums, images, masks = totals.tolist()
        for name, value in zip(self._sums, sums, strict=True):
            count = images if name == _PER_IMAGE else masks
            engine.state.metrics[f"loss_{name}"] = value / count if count else float("nan")
