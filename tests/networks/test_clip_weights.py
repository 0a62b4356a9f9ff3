# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Forms of weights. What transformers' CLIPModel is called and computes was recorded from transformers itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from monai_anomalyclip.networks import build_backbone
from monai_anomalyclip.networks.clip_weights import clip_file, read_clip_weights, tensors_digest

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def recorded(data_dir: Path) -> dict[str, Any]:
    with np.load(data_dir / "transformers_clip.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def theirs(recorded: dict[str, Any]) -> Weights:
    """The weights that the recorded features belong to, by transformers' names."""
    rng = np.random.default_rng(17)
    names = json.loads(str(recorded["names"]))
    return {key: torch.from_numpy(np.asarray(rng.normal(0, 0.2, size), np.float32)) for key, size in names.items()}


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_transformers_layout_computes_what_transformers_does(
    name: str, theirs: Weights, recorded: dict[str, Any], small_config: dict[str, Any], tmp_path: Path
) -> None:
    if name.endswith(".bin"):
        counts = {f"{tower}_model.embeddings.position_ids": torch.arange(5)[None] for tower in ("text", "vision")}
        torch.save({**theirs, **counts}, tmp_path / name)  # as older versions wrote them
    else:
        save_file(theirs, tmp_path / name)
    clip = build_backbone(small_config, tmp_path).clip  # the folder, as it is downloaded
    images = clip.encode_image(torch.from_numpy(recorded["image"]))
    texts = clip.encode_text(torch.from_numpy(recorded["tokens"]))
    torch.testing.assert_close(images, torch.from_numpy(recorded["image_features"]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(texts, torch.from_numpy(recorded["text_features"]), rtol=1e-5, atol=1e-5)


def test_same_tensors_have_the_same_digest_in_every_form(
    theirs: Weights, small_config: dict[str, Any], tmp_path: Path
) -> None:
    save_file(theirs, tmp_path / "model.safetensors")
    first = build_backbone(small_config, tmp_path / "model.safetensors")
    save_file(first.clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    one, other = (read_clip_weights(tmp_path / name) for name in ("model.safetensors", "open_clip_model.safetensors"))
    assert (one.layout, other.layout) == ("transformers", "open_clip")
    assert tensors_digest(one.tensors) == tensors_digest(other.tensors) == first.sha256
    assert clip_file(tmp_path).name == "open_clip_model.safetensors"
    changed = {**other.tensors, "logit_scale": other.tensors["logit_scale"] + 1e-6}
    assert tensors_digest(changed) != first.sha256


def test_a_part_that_is_missing_is_named(theirs: Weights, small_config: dict[str, Any], tmp_path: Path) -> None:
    lacking = {key: value for key, value in theirs.items() if "layers.1.self_attn.k_proj.bias" not in key}
    save_file(lacking, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lack a part of transformers' CLIPModel: .*k_proj\.bias"):
        build_backbone(small_config, tmp_path)
    save_file({**theirs, "extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="extra"):
        build_backbone(small_config, tmp_path)
    shutil.rmtree(tmp_path)
