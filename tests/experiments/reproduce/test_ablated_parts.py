# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from monai_anomalyclip.experiments.baselines import VAND, CoOp
from monai_anomalyclip.experiments.reproduce.ablated_parts import (
    GlobalAndDiceLoss,
    GlobalAndFocalLoss,
    LocalLoss,
    ObjectAwareAnomalyCLIP,
    PrepareClassBatch,
    ToldCoOp,
    ToldVAND,
)
from monai_anomalyclip.losses import GlocalLoss, Logits
from monai_anomalyclip.networks import AnomalyCLIP, FrozenCLIPNetwork

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 3},
    "quick_gelu": True,
}
CLASSES = ["metal_nut", "wood", "metal_nut", ""]
AWARE = {"feature_layers": (1, 2), "dpam_start": 1, "deep_prompt_depth": 3}

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


def built(method: type[FrozenCLIPNetwork], **settings: Any) -> Any:
    torch.manual_seed(4)
    return method(SMALL, None, image_size=28, **settings)  # type: ignore[call-arg]


def named(kind: str, word: str) -> Any:
    """The ordinary network with the word in its prompts, built as it says in the papers."""
    if kind == "vand":
        return built(VAND, class_name=word)
    if kind == "coop":
        return built(CoOp, class_name=word)
    return built(AnomalyCLIP, **AWARE, normal_words=(word,), abnormal_words=(f"damaged {word}",))


KINDS: dict[str, tuple[type[FrozenCLIPNetwork], dict[str, Any]]] = {
    "vand": (ToldVAND, {}),
    "coop": (ToldCoOp, {}),
    "aware": (ObjectAwareAnomalyCLIP, AWARE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_is_compared_with_its_classs_prompts(kind: str) -> None:
    method, settings = KINDS[kind]
    told = built(method, **settings)
    images = torch.randn(4, 3, 28, 28)
    others = {word: named(kind, word) for word in ("metal nut", "wood", "object")}
    for other in others.values():
        other.load_state_dict(told.state_dict())
    with torch.no_grad():
        for output in ("all", "prediction", "anomaly_map"):
            found = told(images, output=output, classes=CLASSES)
            for index, word in enumerate(["metal nut", "wood", "metal nut", "object"]):
                expected = others[word](images[index : index + 1], output=output)
                for ours, theirs in zip(flat(found), flat(expected), strict=True):
                    torch.testing.assert_close(ours[index : index + 1], theirs)
        torch.testing.assert_close(told(images), others["object"](images))  # nothing told


def flat(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    values = found.values() if isinstance(found, dict) else found
    return [tensor for value in values for tensor in flat(value)]


@pytest.mark.parametrize("kind", ["coop", "aware"])
def test_all_classes_teach_the_same_context(kind: str) -> None:
    method, settings = KINDS[kind]
    told = built(method, **settings)
    state = set(told.state_dict())
    images = torch.randn(4, 3, 28, 28)
    target = {"image_label": torch.tensor([0, 1, 1, 0]), "label": torch.zeros(4, 1, 28, 28)}
    target["label"][1:3, :, :9] = 1
    GlocalLoss()(told(images, output="logits", classes=CLASSES), target).backward()
    got = [value.grad for value in told.prompts.parameters()]
    assert all(gradient is not None and bool(gradient.any()) for gradient in got)
    assert set(told.state_dict()) == state == {name for name, value in told.named_parameters() if value.requires_grad}

    # A step changes the prompts of every class at once.
    before = told(images, output="logits", classes=CLASSES)["image_logits"].detach()
    torch.optim.SGD(told.prompts.parameters(), lr=1.0).step()
    with torch.no_grad():
        after = told(images, output="logits", classes=CLASSES)["image_logits"]
        fresh = built(method, **settings)
        fresh.load_state_dict(told.state_dict())
        torch.testing.assert_close(fresh(images, output="logits", classes=CLASSES)["image_logits"], after)
    assert not torch.allclose(before, after)


def test_cached_features_and_copies() -> None:
    told = built(ToldVAND)
    images = torch.randn(3, 3, 28, 28)
    with torch.no_grad():
        whole, patches = told.encode_image(images)
        cached = {"global_features": whole, "patch_features": torch.stack(patches, dim=1)}
        expected = told(images, output="logits", classes=["a", "b", "a"])
        found = told(cached, output="logits", classes=["a", "b", "a"])
        copied = copy.deepcopy(told)(images, output="logits", classes=["a", "b", "a"])
    for other in (found, copied):
        for ours, theirs in zip(flat(other), flat(expected), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_batches_carry_the_class() -> None:
    batch = {"image": torch.zeros(2, 3, 28, 28), "class": ["a", "b"], "image_label": torch.tensor([0, 1])}
    inputs, targets, positional, named_arguments = PrepareClassBatch(output="logits")(batch, "cpu")
    assert inputs.shape == (2, 3, 28, 28)
    assert set(targets) == {"image_label"}
    assert positional == ()
    assert named_arguments == {"output": "logits", "classes": ["a", "b"]}


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
