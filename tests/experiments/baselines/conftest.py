# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The tiny reference CLIP for every method, and the plain transcriptions that the methods are compared with."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_anomalyclip.networks import Backbone, FrozenCLIPNetwork, build_backbone

MODULES = ("plain_clip", "coop", "winclip", "vand", "retrieval")


@pytest.fixture(scope="session")
def plain() -> Iterator[ModuleType]:
    """The oracle module ``plain_baselines``, which needs ``plain_anomalyclip`` of the networks' tests."""
    loaded = {}
    for path in (
        Path(__file__).parents[2] / "networks" / "plain_anomalyclip.py",
        Path(__file__).with_name("plain_baselines.py"),
    ):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        loaded[path.stem] = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[path.stem])
    yield loaded["plain_baselines"]
    for name in loaded:
        del sys.modules[name]


@pytest.fixture(scope="session")
def tiny_weights(data_dir: Path) -> Path:
    return data_dir / "tiny" / "clip_weights_fp16.safetensors"


@pytest.fixture(scope="session")
def backbone(tiny_config: dict[str, Any], tiny_weights: Path) -> Backbone:
    """The tiny reference CLIP in float64, with an embedding for every word of the vocabulary."""
    clip = copy.deepcopy(build_backbone(tiny_config["clip"], tiny_weights).clip).double()
    table = clip.token_embedding.weight
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(table.shape, generator=generator, dtype=torch.float64) * 0.02
    table.copy_(torch.where((table == 0).all(1, keepdim=True), noise, table))
    return Backbone(clip, "custom", "0" * 64)


@pytest.fixture
def make(backbone: Backbone, tiny_config: dict[str, Any]) -> Callable[..., Any]:
    """``make(CoOp, **settings)``: a method on the shared tiny CLIP in float64, what it learns drawn at random."""

    def build(method: type[FrozenCLIPNetwork], **settings: Any) -> FrozenCLIPNetwork:
        target = f"{method.__module__}.build_backbone"
        with mock.patch(target, return_value=backbone):
            network = method(tiny_config["clip"], None, **{"image_size": 84, **settings})  # type: ignore[call-arg]
        learned = [(name, value) for name, value in network.named_parameters() if not name.startswith("clip.")]
        with torch.no_grad():
            for _, parameter in learned:
                parameter.data = torch.randn(parameter.shape, dtype=torch.float64) * 0.1
        return network

    return build


@pytest.fixture(scope="session")
def image(reference: dict[str, np.ndarray]) -> Tensor:
    """Two of the reference images, (2, 3, 84, 84)."""
    return torch.from_numpy(reference["image"][:2]).double()


@pytest.fixture(scope="session")
def wide_image() -> Tensor:
    """(1, 3, 42, 70): a grid of 3 rows and 5 columns."""
    return torch.randn(1, 3, 42, 70, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.fixture(scope="session")
def small_config() -> dict[str, Any]:
    """A CLIP of four thin blocks, for tests in which the numbers do not matter."""
    return {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 28, "layers": 4, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
        "quick_gelu": True,
    }
