# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn

from monai_anomalyclip.handlers import EvaluationLoss
from monai_anomalyclip.losses import GlocalLoss

COUNT = 7


def images() -> dict[str, Tensor]:
    label = torch.zeros(COUNT, 1, 8, 8)
    label[::2, :, 2:5, 1:6] = 1
    return {
        "image": torch.randn(COUNT, 6, 4, 4),
        "label": label,
        "image_label": torch.arange(COUNT) % 2 == 0,
        "has_label": torch.ones(COUNT, dtype=torch.long),
    }


class Network(nn.Module):
    """Takes what it is to give from the image itself."""

    def forward(self, image: Tensor) -> dict[str, Any]:
        layers = [image[:, 0:2], image[:, 2:4, :3, :3]]
        return {"image_logits": image[:, 4:, 0, 0], "patch_logits": layers, "anomaly_score": image[:, 0, 0, 0]}


def evaluate(data: dict[str, Tensor], batches: list[slice], loss: Any) -> dict[str, float]:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{key: value[part] for key, value in data.items()} for part in batches],
        network=Network(),
        prepare_batch=lambda batch, device, non_blocking, **_: (batch["image"], dict(batch)),
        val_handlers=[EvaluationLoss(loss)],
    )
    for _ in range(2):  # the second run starts anew
        evaluator.run()
    metrics: dict[str, float] = evaluator.state.metrics
    return metrics


@pytest.mark.parametrize("batches", [[slice(0, 7)], [slice(0, 3), slice(3, 7)], [slice(i, i + 1) for i in range(7)]])
def test_terms_are_those_of_all_images_however_they_are_batched(batches: list[slice]) -> None:
    data = images()
    whole = GlocalLoss()
    whole(Network()(data["image"]), data)
    metrics = evaluate(data, batches, GlocalLoss())
    assert set(metrics) == {"loss_global", "loss_focal", "loss_dice_abnormal", "loss_dice_normal"}
    for name, value in metrics.items():
        assert value == pytest.approx(float(whole.last_terms[name.removeprefix("loss_")]), abs=1e-6)


def test_images_without_mask_count_for_the_global_term_alone() -> None:
    data = images()
    data["has_label"][[0, 4]] = 0
    single = []
    for index in range(COUNT):
        loss = GlocalLoss()
        loss(
            Network()(data["image"][index : index + 1]), {key: value[index : index + 1] for key, value in data.items()}
        )
        single.append({name: float(term) for name, term in loss.last_terms.items()})
    metrics = evaluate(data, [slice(0, 3), slice(3, 7)], GlocalLoss())
    assert metrics["loss_global"] == pytest.approx(np.mean([terms["global"] for terms in single]), abs=1e-6)
    known = [terms for index, terms in enumerate(single) if index not in (0, 4)]
    for name in ("focal", "dice_abnormal", "dice_normal"):
        assert metrics[f"loss_{name}"] == pytest.approx(np.mean([terms[name] for terms in known]), abs=1e-6)


def test_without_any_mask_the_pixel_terms_are_undefined() -> None:
    data = images()
    data["has_label"].zero_()
    metrics = evaluate(data, [slice(0, 7)], GlocalLoss())
    assert math.isnan(metrics["loss_focal"])
    assert metrics["loss_global"] > 0
