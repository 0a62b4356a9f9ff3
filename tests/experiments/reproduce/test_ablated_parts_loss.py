# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_anomalyclip.experiments.reproduce.ablated_parts import GlobalAndDiceLoss, GlobalAndFocalLoss, LocalLoss
from monai_anomalyclip.losses import GlocalLoss, Logits


def batch() -> tuple[Logits, dict[str, torch.Tensor]]:
    label = torch.zeros(3, 1, 12, 12)
    label[1, :, 2:6, 3:7] = 1
    target = {"image_label": torch.tensor([0, 1, 0]), "label": label}
    layers = [torch.randn(3, 2, 3, 3, requires_grad=True) for _ in range(2)]
    return {"image_logits": torch.randn(3, 2, requires_grad=True), "patch_logits": layers}, target


def test_global_and_local_add_up_to_both() -> None:
    logits, target = batch()
    both, alone, local = GlocalLoss(3.0), GlocalLoss(0.0), LocalLoss(3.0)
    torch.testing.assert_close(local(logits, target) + alone(logits, target), both(logits, target))
    terms = local.last_terms
    expected = 3.0 * (terms["focal"] + terms["dice_abnormal"] + terms["dice_normal"])
    torch.testing.assert_close(terms["total"], expected)
    torch.testing.assert_close(terms["global"], both.last_terms["global"])


def test_image_logits_get_no_gradient_and_patches_all_of_theirs() -> None:
    logits, target = batch()
    image, layers = logits["image_logits"], logits["patch_logits"]
    (with_both,) = torch.autograd.grad(GlocalLoss()(logits, target), layers[0], retain_graph=True)
    gradients = torch.autograd.grad(LocalLoss()(logits, target), [image, layers[0]], allow_unused=True)
    assert gradients[0] is None
    torch.testing.assert_close(gradients[1], with_both)


@pytest.mark.parametrize(
    ("loss", "counted"), [(GlobalAndDiceLoss, ("dice_abnormal", "dice_normal")), (GlobalAndFocalLoss, ("focal",))]
)
def test_global_and_one_of_the_pixel_losses(loss: type[GlocalLoss], counted: tuple[str, ...]) -> None:
    logits, target = batch()
    both, part = GlocalLoss(3.0), loss(3.0)
    both(logits, target)
    total = part(logits, target)
    expected = both.last_terms["global"] + 3.0 * sum(both.last_terms[name] for name in counted)
    torch.testing.assert_close(total.detach(), expected)
    assert part.last_terms.keys() == both.last_terms.keys()
