# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_anomalyclip.experiments.baselines import PlainCLIP, PlainVision, ensemble_prompts
from monai_anomalyclip.networks import Backbone

Make = Callable[..., Any]


@pytest.mark.parametrize("ensemble", ["single", "winclip"])
@torch.no_grad()
def test_map_and_score_equal_the_oracle(
    ensemble: str, make: Make, backbone: Backbone, image: Tensor, wide_image: Tensor, plain: ModuleType
) -> None:
    weights = backbone.clip.state_dict()
    network = make(PlainCLIP, ensemble=ensemble, class_name="brain", temperature=0.05)
    text = plain.ensemble_text(weights, *ensemble_prompts(ensemble, "brain"))
    torch.testing.assert_close(network.encode_prompts(), text)
    for pixels in (image, wide_image):
        predicted = network.predict(pixels)
        score = plain.abnormal_probability(plain.image_feature(weights, pixels), text, 0.05)
        torch.testing.assert_close(predicted["anomaly_score"], score)
        torch.testing.assert_close(predicted["anomaly_map"], plain.clip_map(weights, pixels, text, 0.05))
        torch.testing.assert_close(network(pixels), predicted["anomaly_map"])


def test_nothing_is_learned_or_saved(make: Make, image: Tensor) -> None:
    network = make(PlainCLIP)
    assert [parameter for parameter in network.parameters() if parameter.requires_grad] == []
    assert network.state_dict() == {}
    network.load_state_dict({})
    network.train()
    assert not network.clip.training
    clone = copy.deepcopy(network)
    assert clone.clip is network.clip
    torch.testing.assert_close(clone(image), network(image))


def test_text_is_encoded_once(make: Make, image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(PlainCLIP)
    passes: list[int] = []
    forward = type(network.prompts).forward
    monkeypatch.setattr(type(network.prompts), "forward", lambda *given: passes.append(1) or forward(*given))
    for _ in range(3):  # gradients are recorded here, but nothing of the prompts could get one
        network(image)
    assert passes == [1]


def test_cached_features_give_the_same_prediction(make: Make, image: Tensor) -> None:
    network = make(PlainCLIP)
    global_features, patch_features = network.encode_image(image)
    cached = {"global_features": global_features, "patch_features": torch.stack(patch_features, dim=1)}
    for key, value in network.predict(image).items():
        torch.testing.assert_close(network(cached, output="prediction")[key], value)


def test_wrong_input(make: Make) -> None:
    network = make(PlainCLIP)
    with pytest.raises(ValueError, match=r"must have shape \(B, 3, H, W\)"):
        network(torch.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match="multiple of the patch size 14"):
        network(torch.zeros(1, 3, 30, 28))
    with pytest.raises(ValueError, match="temperature=0 must be positive"):
        make(PlainCLIP, temperature=0)


@torch.no_grad()
def test_image_feature_is_open_clips_own(backbone: Backbone, image: Tensor) -> None:
    cropped = image[..., :56, :56]  # the size that the tower was trained at
    feature, tapped = PlainVision([12], project=True)(backbone.clip.visual, cropped)
    torch.testing.assert_close(feature, backbone.clip.encode_image(cropped))
    torch.testing.assert_close(tapped[0][:, 0], feature)


@pytest.mark.parametrize("project", [False, True])
@torch.no_grad()
def test_tokens_equal_the_oracle(
    project: bool, backbone: Backbone, image: Tensor, wide_image: Tensor, plain: ModuleType
) -> None:
    weights = backbone.clip.state_dict()
    vision = PlainVision([3, 12], project=project)
    for pixels in (image, wide_image):
        feature, tapped = vision(backbone.clip.visual, pixels)
        expected = [plain.after_blocks(weights, plain.embed(weights, pixels))[number] for number in (2, 11)]
        torch.testing.assert_close(feature, plain.project(weights, expected[1][:, 0]))
        for tokens, target in zip(tapped, expected, strict=True):
            torch.testing.assert_close(tokens, plain.project(weights, target) if project else target)
