# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Networks on the tiny reference CLIP, and the plain transcription that they are compared with."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from monai_anomalyclip.networks import AnomalyCLIP, Backbone, build_backbone

NetFactory = Callable[..., AnomalyCLIP]

REFERENCE_SETTINGS: dict[str, Any] = {
    "image_size": 84,
    "feature_layers": (3, 6, 9, 12),
    "dpam_start": 5,
    "deep_prompt_depth": 5,
}
SMALL_CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
    "quick_gelu": True,
}


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """The oracle module ``plain_anomalyclip`` beside this file."""
    path = Path(__file__).with_name("plain_anomalyclip.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_config() -> dict[str, Any]:
    """A CLIP of two thin blocks per tower, for tests in which the numbers do not matter."""
    return copy.deepcopy(SMALL_CONFIG)


@pytest.fixture(scope="session")
def tiny_weights(data_dir: Path) -> Path:
    return data_dir / "tiny" / "clip_weights_fp16.safetensors"


@pytest.fixture(scope="session")
def published_prompts(data_dir: Path) -> Path:
    return data_dir / "tiny" / "prompt_learner.pth"


@pytest.fixture(scope="session")
def tiny_backbones(tiny_config: dict[str, Any], tiny_weights: Path) -> dict[torch.dtype, Backbone]:
    """The tiny CLIP in float32 as recorded, and in float64 with an embedding for every word of the vocabulary."""
    single = build_backbone(tiny_config["clip"], tiny_weights)
    clip = copy.deepcopy(single.clip).double()
    table = clip.token_embedding.weight
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(table.shape, generator=generator, dtype=torch.float64) * 0.02
    table.copy_(torch.where((table == 0).all(1, keepdim=True), noise, table))
    return {torch.float32: single, torch.float64: Backbone(clip, "custom", "0" * 64)}


@pytest.fixture
def make_net(tiny_config: dict[str, Any], tiny_backbones: dict[torch.dtype, Backbone]) -> NetFactory:
    """``make_net(dtype=torch.float64, **settings)``: a network on the shared tiny CLIP with distinct random prompts."""

    def build(dtype: torch.dtype = torch.float64, **settings: Any) -> AnomalyCLIP:
        with mock.patch("monai_anomalyclip.networks.anomaly_clip.build_backbone", return_value=tiny_backbones[dtype]):
            net = AnomalyCLIP(tiny_config["clip"], None, **{**REFERENCE_SETTINGS, **settings})
        net.prompts.to(dtype)
        with torch.no_grad():
            for parameter in net.prompts.parameters():
                parameter.normal_(std=0.1)
        return net

    return build


@pytest.fixture
def reference_net(make_net: NetFactory, published_prompts: Path) -> AnomalyCLIP:
    """The network of the reference numbers: tiny CLIP in float32 with the recorded prompts."""
    net = make_net(torch.float32)
    net.load_prompts(published_prompts)
    return net


@pytest.fixture
def oracle_text(plain: ModuleType) -> Callable[..., Tensor]:
    """``oracle_text(net, normal_words, abnormal_words)``: text features of the net's prompts by the oracle."""
    import open_clip

    def encode(net: AnomalyCLIP, normal_words: Any = ("object",), abnormal_words: Any = ("damaged object",)) -> Tensor:
        learned = {name: value.detach() for name, value in net.prompts.named_parameters()}
        length = learned["context_normal"].shape[1]
        ids = [
            open_clip.tokenize([f"{'X ' * length}{word}." for word in words])
            for words in (normal_words, abnormal_words)
        ]
        features: Tensor = plain.text(
            net.clip.state_dict(),
            *ids,
            learned["context_normal"],
            learned.get("context_abnormal", learned["context_normal"]),
            [learned[f"deep_prompts.{index}"] for index in range(len(net.prompts.deep_prompts))],
            heads=1,
        )
        return features

    return encode
