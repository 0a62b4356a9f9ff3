# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""From a collated batch to the network's input and the loss's target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from monai.engines import PrepareBatch
from monai.utils import convert_to_tensor
from torch import Tensor

__all__ = ["PrepareAnomalyBatch"]

_TARGETS = ("image_label", "label", "has_label")
_FEATURES = ("global_features", "patch_features")


class PrepareAnomalyBatch(PrepareBatch):
    """Cached features when the batch has them, else images; and which output the network shall give.

    Args:
        output: "logits" for tuning, "prediction" for validation, "all" where the loss is wanted beside the metrics (see
            ``AnomalyCLIP.forward``).

    Example::

        trainer = SupervisedTrainer(..., prepare_batch=PrepareAnomalyBatch("logits"), loss_function=GlocalLoss())
    """

    def __init__(self, output: Literal["logits", "prediction", "all"]) -> None:
        self.output = output

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor | dict[str, Tensor], dict[str, Tensor], tuple[()], dict[str, str]]:
        """Returns inputs, targets ``{"image_label", "label", "has_label"}``, and the network's extra arguments."""

        def move(key: str) -> Tensor:
            # Plain tensors: metadata is of no use to the network and costs time in every operation.
            plain: Tensor = convert_to_tensor(batchdata[key], track_meta=False)
            return plain.to(device=device, non_blocking=non_blocking)

        cached = all(key in batchdata for key in _FEATURES)
        inputs = {key: move(key) for key in _FEATURES} if cached else move("image")
        targets = {key: move(key) for key in _TARGETS if key in batchdata}
        return inputs, targets, (), {"output": self.output}
