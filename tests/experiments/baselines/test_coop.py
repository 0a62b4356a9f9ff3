# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from monai_anomalyclip.data import FeatureKey
from monai_anomalyclip.experiments.baselines import CoOp
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP, Backbone

Make = Callable[..., Any]


def oracle_text(network: CoOp, plain: ModuleType, class_name: str) -> Tensor:
    """[V]_1 ... [V]_16 normal / anomalous <class>."""
    ids = [open_clip.tokenize(f"{'X ' * 16}{state} {class_name}.") for state in ("normal", "anomalous")]
    contexts = [context.detach() for context in network.prompts.contexts]
    features: Tensor = plain.pieces.text(network.clip.state_dict(), *ids, *contexts, [], heads=1)
    return features


@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_map_and_score_equal_the_oracle(shared: bool, make: Make, image: Tensor, plain: ModuleType) -> None:
    network = make(CoOp, class_name="colon", shared_context=shared)
    weights = network.clip.state_dict()
    text = oracle_text(network, plain, "colon")
    predicted = network.predict(image)
    temperature = 1 / math.exp(float(weights["logit_scale"]))
    score = plain.abnormal_probability(plain.image_feature(weights, image), text, temperature)
    torch.testing.assert_close(predicted["anomaly_score"], score)
    torch.testing.assert_close(predicted["anomaly_map"], plain.clip_map(weights, image, text, temperature))


def test_another_temperature_than_clips_own(make: Make, image: Tensor) -> None:
    own, other = make(CoOp), make(CoOp, temperature=0.07)
    assert own.settings["temperature"] == own.temperature == pytest.approx(float(torch.exp(-own.clip.logit_scale)))
    assert other.temperature == 0.07
    with pytest.raises(ValueError, match="temperature=0 must be positive"):
        make(CoOp, temperature=0)


def test_context_is_unified(make: Make) -> None:
    assert [(name, tuple(value.shape)) for name, value in make(CoOp).state_dict().items()] == [
        ("prompts.context_normal", (1, 16, 64))
    ]


def test_only_the_class_token_teaches(
    make: Make, backbone: Backbone, image: Tensor, plain: ModuleType, reference: dict[str, np.ndarray]
) -> None:
    """Gradient of the cross entropy of the image (CoOp, section 3.2), by autograd through the oracle."""
    network = make(CoOp)
    labels = torch.tensor([0, 1])
    mask = torch.from_numpy(reference["mask"][:2]).double()[:, None]
    GlocalLoss(lambda_local=0.0)(network(image, output="logits"), {"image_label": labels, "label": mask}).backward()
    context = network.prompts.context_normal.detach().clone().requires_grad_()
    weights = backbone.clip.state_dict()
    ids = [open_clip.tokenize(f"{'X ' * 16}{state} object.") for state in ("normal", "anomalous")]
    text = plain.pieces.text(weights, *ids, context, context, [], heads=1)
    logits = plain.pieces.unit(plain.image_feature(weights, image)) @ text.T * weights["logit_scale"].exp()
    F.cross_entropy(logits, labels).backward()
    torch.testing.assert_close(network.prompts.context_normal.grad, context.grad)
    assert all(parameter.grad is None for parameter in network.clip.parameters())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_prompts_survive_the_disk(suffix: str, make: Make, tmp_path: Path) -> None:
    first, second = make(CoOp), make(CoOp)
    first.save_prompts(tmp_path / f"coop{suffix}")
    second.load_prompts(tmp_path / f"coop{suffix}")
    assert torch.equal(first.prompts.context_normal, second.prompts.context_normal)
    second.load_state_dict(make(CoOp).state_dict())
    assert not torch.equal(first.prompts.context_normal, second.prompts.context_normal)


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_prompts_of_another_method_or_backbone_are_refused(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    network = make(CoOp)
    anomalyclip = AnomalyCLIP(small_config, None, image_size=28, feature_layers=(2,), dpam_start=1, deep_prompt_depth=2)
    anomalyclip.save_prompts(tmp_path / "anomalyclip.pt")
    with pytest.raises(ValueError, match="do not fit this network"):
        network.load_prompts(tmp_path / "anomalyclip.pt")
    network.backbone_sha256 = "1" * 64
    network.save_prompts(tmp_path / "other.pt")
    network.backbone_sha256 = "0" * 64
    with pytest.raises(ValueError, match="were tuned with the CLIP"):
        network.load_prompts(tmp_path / "other.pt")


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_features_are_not_mistaken_for_those_of_anomalyclip(small_config: dict[str, Any]) -> None:
    """Same backbone, same layer, no DPAM; but CoOp's image feature passes the last layer norm."""
    torch.manual_seed(1)
    coop = CoOp(small_config, None, image_size=28)
    torch.manual_seed(1)
    plain_path: dict[str, Any] = {"feature_layers": (4,), "dpam_start": 4, "dpam_attention": "qk"}
    anomalyclip = AnomalyCLIP(small_config, None, image_size=28, deep_prompt_depth=1, **plain_path)
    assert coop.backbone_sha256 == anomalyclip.backbone_sha256
    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        assert not torch.allclose(coop.encode_image(pixels)[0], anomalyclip.encode_image(pixels)[0])
    assert FeatureKey(coop)({"image": "a"}) != FeatureKey(anomalyclip)({"image": "a"})
