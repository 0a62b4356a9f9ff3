# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomalyclip.export import export_model
from monai_anomalyclip.networks import AnomalyCLIP

SMALL_CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
    "quick_gelu": True,
}


@pytest.fixture(scope="session")
def small_config() -> dict[str, Any]:
    return SMALL_CONFIG


@pytest.fixture
def small() -> AnomalyCLIP:
    """A network of two thin blocks, for tests in which the numbers do not matter."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {"image_size": 42, "feature_layers": (2,), "dpam_start": 2, "deep_prompt_depth": 2}
    with pytest.warns(UserWarning, match="random weights"):
        return AnomalyCLIP(SMALL_CONFIG, None, **settings)


@pytest.fixture(scope="session")
def tiny_prompts(data_dir: Path) -> Path:
    return data_dir / "tiny" / "prompt_learner.pth"


@pytest.fixture(scope="session")
def tiny(tiny_config: dict[str, Any], data_dir: Path, tiny_prompts: Path) -> AnomalyCLIP:
    """The network of the reference numbers; several layers, positions resized from another grid."""
    weights = data_dir / "tiny" / "clip_weights_fp16.safetensors"
    settings: dict[str, Any] = {"image_size": 84, "feature_layers": (3, 6, 9, 12), "dpam_start": 5}
    network = AnomalyCLIP(tiny_config["clip"], weights, deep_prompt_depth=5, **settings)
    network.load_prompts(tiny_prompts)
    return network


@pytest.fixture(scope="session")
def exported(
    tiny: AnomalyCLIP, tiny_prompts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """``exported("model.onnx")``: the tiny network as a file, and its description; made once, for it takes seconds."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(name: str) -> tuple[Path, dict[str, Any]]:
        if name not in made:
            made[name] = export_model(tiny, folder / name, prompts=tiny_prompts, sigma=1.0)
        return folder / name, made[name]

    return export
