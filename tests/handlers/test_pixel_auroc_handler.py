# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from monai_anomalyclip.handlers import PixelAUROC


class MapOfFirstChannel(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1]


def test_metric_of_monais_evaluator() -> None:
    items: list[dict[str, Any]] = [
        {"image": torch.rand(3, 6, 6), "label": (torch.rand(1, 6, 6) > 0.7).float()} for _ in range(5)
    ]
    expected = roc_auc_score(
        torch.cat([item["label"].flatten() for item in items]).numpy(),
        torch.cat([item["image"][0].flatten() for item in items]).numpy(),
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=MapOfFirstChannel(),
        key_val_metric={"pixel_auroc": PixelAUROC(from_engine(["pred", "label"]))},
    )
    for _ in range(2):  # the second run must not pool the first one's pixels
        evaluator.run()
        assert evaluator.state.metrics["pixel_auroc"] == pytest.approx(expected, abs=1e-12)
        assert isinstance(evaluator.state.metrics["pixel_auroc"], float)
    assert evaluator.state.metric_details == {}


def test_default_output_transform() -> None:
    engine = Engine(lambda _, batch: batch)
    PixelAUROC().attach(engine, "auroc")
    maps, masks = torch.rand(3, 1, 4, 4), (torch.rand(3, 1, 4, 4) > 0.5).float()
    state = engine.run(list(zip(maps[:, None], masks[:, None], strict=True)))
    expected = roc_auc_score(masks.flatten().numpy(), maps.flatten().numpy())
    assert state.metrics["auroc"] == pytest.approx(expected, abs=1e-12)


def test_one_class_gives_nan_and_one_warning() -> None:
    engine = Engine(lambda _, batch: batch)
    PixelAUROC().attach(engine, "auroc")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = engine.run([(torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))])
    assert state.metrics["auroc"] != state.metrics["auroc"]  # NaN
    assert sum("Pixel AUROC is undefined" in str(warning.message) for warning in caught) == 1
