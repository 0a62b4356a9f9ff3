# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from torch import nn

from monai_anomalyclip.handlers import ImageAUROC
from monai_anomalyclip.metrics import higher_unless_nan


@pytest.mark.parametrize(
    ("current", "best", "better"),
    [
        (0.9, 0.8, True),
        (0.8, 0.9, False),
        (0.8, 0.8, False),
        (0.1, math.nan, True),
        (math.nan, 0.1, False),
        (math.nan, math.nan, False),
    ],
)
def test_higher_unless_nan(current: float, best: float, better: bool) -> None:
    assert higher_unless_nan(current, best) is better


def best_after_each_epoch(**options: object) -> list[tuple[float, int]]:
    """What MONAI's evaluator takes for the best, when the first epoch sees one class only."""
    scores, labels = torch.tensor([0.3, 0.6, 0.7, 0.2]), [torch.zeros(4), *[torch.tensor([0.0, 1, 0, 1])] * 3]
    scale = [1, 1, -1, 1]  # turned upside down in the third epoch, which makes it better
    items = [{"image": torch.zeros(1), "label": torch.zeros(())} for _ in range(4)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=4),
        network=nn.Identity(),
        key_val_metric={"image_auroc": ImageAUROC(from_engine(["pred", "label"]))},
        **options,
    )
    best = []
    for epoch in range(4):
        for index, item in enumerate(items):
            item["image"], item["label"] = scale[epoch] * scores[index : index + 1], labels[epoch][index : index + 1]
        evaluator.run(epoch + 1)
        best.append((evaluator.state.best_metric, evaluator.state.best_metric_epoch))
    return best


@pytest.mark.filterwarnings("ignore:Image AUROC is undefined")
def test_nan_does_not_freeze_the_best_metric_of_monais_engine() -> None:
    best = best_after_each_epoch(metric_cmp_fn=higher_unless_nan)
    assert math.isnan(best[0][0])
    assert best[1:] == [(0.25, 2), (0.75, 3), (0.75, 3)]
    frozen = best_after_each_epoch()  # the reason why there is such a function
    assert math.isnan(frozen[-1][0])
    assert frozen[-1][1] == 1
