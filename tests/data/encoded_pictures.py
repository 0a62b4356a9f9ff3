# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A small CLIP, pictures with masks, and a count of how often these are encoded, for the tests of the feature cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose, SelectItemsd
from PIL import Image
from torch import Tensor

from monai_anomalyclip.data import (
    LoadFramed,
    LoadMaskd,
)
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.transforms import CLIPMaskPreprocessd, CLIPPreprocessd

__all__ = [
    "IMAGES",
    "SETTINGS",
    "SMALL_CLIP",
    "Items",
    "encodings",
    "items",
    "make_net",
    "net",
    "preprocessing",
    "read",
    "small_weights",
]

SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
    "quick_gelu": True,
}


IMAGES = 5


Items = list[dict[str, Any]]


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small CLIP, so that several networks can share one backbone."""
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.manual_seed(5)
    with pytest.warns(UserWarning, match="random weights"):
        torch.save(AnomalyCLIP(SMALL_CLIP, None, **SETTINGS).clip.state_dict(), path)
    return path


SETTINGS: dict[str, Any] = {
    "image_size": 28,
    "feature_layers": (1, 2),
    "dpam_start": 1,
    "deep_prompt_depth": 2,
    "prompt_length": 4,
}


@pytest.fixture
def make_net(small_weights: Path) -> Callable[..., AnomalyCLIP]:
    def build(weights: Path | None = small_weights, **settings: Any) -> AnomalyCLIP:
        return AnomalyCLIP(SMALL_CLIP, weights, **{**SETTINGS, **settings})

    return build


@pytest.fixture
def net(make_net: Callable[..., AnomalyCLIP]) -> AnomalyCLIP:
    return make_net()


@pytest.fixture
def items(tmp_path: Path) -> Items:
    """Random pictures of 84 x 84 pixels; every second one has a mask, the last is anomalous without one."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    data: Items = []
    for index in range(IMAGES):
        path = tmp_path / "images" / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (84, 84, 3), dtype=np.uint8)).save(path)
        data.append({"image": str(path), "image_label": int(index % 2 == 1 or index == IMAGES - 1), "class": "noise"})
        if index % 2 == 1:
            mask = np.zeros((84, 84), np.uint8)
            mask[10 * index : 10 * index + 30, 20:60] = 255
            data[-1]["label"] = str(path.with_name(f"{index}_mask.png"))
            Image.fromarray(mask).save(data[-1]["label"])
    return data


def preprocessing(image_size: int = 28) -> Compose:
    return Compose(
        [
            LoadFramed("image"),
            LoadMaskd("label"),
            CLIPPreprocessd("image", image_size=image_size),
            CLIPMaskPreprocessd("label", image_size=image_size),
            SelectItemsd(["image", "label", "image_label", "has_label"]),
        ]
    )


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each call of the frozen encoder, of whatever network."""
    calls: list[int] = []
    encode_image = AnomalyCLIP.encode_image

    def counted(self: AnomalyCLIP, image: Tensor) -> Any:
        calls.append(len(image))
        return encode_image(self, image)

    monkeypatch.setattr(AnomalyCLIP, "encode_image", counted)
    return calls


def read(dataset: Dataset, epochs: int = 1) -> Items:
    return [dataset[index] for _ in range(epochs) for index in range(len(dataset))]
