# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The oracle itself, in float64, against the numbers recorded from the authors' implementation."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

LAYERS = (3, 6, 9, 12)


@pytest.fixture(scope="module")
def results(
    plain: ModuleType, reference: dict[str, np.ndarray], tiny_weights: Path, published_prompts: Path
) -> dict[str, Tensor]:
    """Every array of reference.npz but the smoothed map, computed by the oracle from the recorded inputs."""
    weights = {key: value.double() for key, value in load_file(tiny_weights).items()}
    stored = torch.load(published_prompts, weights_only=True)["prompt_learner"]
    learned = {f"ctx_{sign}": stored[f"ctx_{sign}"][0].double().requires_grad_() for sign in ("pos", "neg")}
    learned |= {f"deep_{i}": stored[f"compound_prompts_text.{i}"].double().requires_grad_() for i in range(4)}
    ids = [stored[f"tokenized_prompts_{sign}"][0].long() for sign in ("pos", "neg")]
    image = torch.from_numpy(reference["image"]).double()

    global_features, patch_features = plain.vision(weights, image, taps=LAYERS, dpam_start=5)
    text = plain.text(
        weights, *ids, learned["ctx_pos"], learned["ctx_neg"], [learned[f"deep_{i}"] for i in range(4)], heads=1
    )
    image_logits = plain.cosine_logits(global_features, text, 0.07)
    maps = [plain.similarity_map(plain.cosine_logits(f, text, 0.07), 6, 6, 14) for f in patch_features]
    mask = torch.from_numpy(reference["mask"]).double()
    losses = plain.losses(image_logits, maps, torch.from_numpy(reference["labels"]), mask, 4.0)
    gradients = torch.autograd.grad(losses["loss_total"], list(learned.values()))
    return {
        "image_features_raw": global_features,
        "text_features": text,
        "image_logits": image_logits,
        "image_score": image_logits.softmax(1)[:, 1],
        "anomaly_map_raw": plain.anomaly_map(maps),
        **{f"patch_features_raw_{i}": value for i, value in enumerate(patch_features)},
        **{f"similarity_map_{i}": value for i, value in enumerate(maps)},
        **losses,
        **{f"grad_{key}": value for key, value in zip(learned, gradients, strict=True)},
    }


def test_every_recorded_array_is_reproduced(results: dict[str, Tensor], reference: dict[str, np.ndarray]) -> None:
    recorded = set(reference) - {"image", "labels", "mask", "anomaly_map"}
    assert recorded == set(results)
    for key in sorted(recorded):
        expected = torch.from_numpy(np.asarray(reference[key])).double()
        error = (results[key].detach().reshape(expected.shape) - expected).norm() / expected.norm()
        # The recording is in float32: this is its own rounding error.
        assert error < (3e-6 if key.startswith("grad") else 1e-6), key


def test_bilinear_is_torchs(plain: ModuleType) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for size in ((4, 5), (9, 7), (2, 3), (56, 70)):
        expected = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(plain.bilinear(x, *size), expected, rtol=1e-12, atol=1e-12)
