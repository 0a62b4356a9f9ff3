# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from monai_anomalyclip.experiments.baselines import VANDLoss
from monai_anomalyclip.losses import Logits


def random_logits(layers: int = 2) -> Logits:
    patch_logits = [torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(layers)]
    return {"image_logits": torch.zeros(3, 2, dtype=torch.float64), "patch_logits": patch_logits}


@pytest.fixture
def target() -> dict[str, Tensor]:
    label = (torch.rand(3, 1, 12, 10) > 0.7).long()
    label[0] = 0
    return {"image_label": torch.tensor([0, 1, 1]), "label": label}


def test_value_equals_the_published_formula(target: dict[str, Tensor], plain: ModuleType) -> None:
    logits, loss = random_logits(), VANDLoss()
    maps = [plain.corner_bilinear(layer, 12, 10).softmax(1) for layer in logits["patch_logits"]]
    mask = target["label"][:, 0].double()
    value = loss(logits, target)
    torch.testing.assert_close(value, plain.vand_loss(maps, mask), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.last_terms["dice_abnormal"], plain.pieces.loss_dice([m[:, 1] for m in maps], mask))
    torch.testing.assert_close(loss.last_terms["focal"], plain.pieces.loss_focal(maps, mask), rtol=1e-12, atol=0)
    assert float(loss.last_terms["total"]) == float(value)


def test_images_of_unknown_mask_add_nothing(target: dict[str, Tensor]) -> None:
    logits = random_logits(layers=1)
    target["label"][2] = 0  # anomalous without a mask
    value = VANDLoss()(logits, target)
    value.backward()
    gradient = logits["patch_logits"][0].grad
    assert gradient is not None
    assert float(gradient[2].abs().max()) == 0
    known: Logits = {
        "image_logits": logits["image_logits"][:2],
        "patch_logits": [logits["patch_logits"][0].detach()[:2]],
    }
    alone = VANDLoss()(known, {key: value[:2] for key, value in target.items()})
    torch.testing.assert_close(value.detach(), alone)
    marked = VANDLoss()(logits, {**target, "has_label": torch.tensor([1, 1, 0])})
    torch.testing.assert_close(marked, value)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="For 3 images the targets must be"):
        VANDLoss()(random_logits(), {"image_label": torch.zeros(3), "label": torch.zeros(3, 12, 10)})
