# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from monai_anomalyclip.networks import DualPathVision


def test_the_products_are_those_of_the_pass(script: Callable[[str], ModuleType]) -> None:
    """Against torch's own counter; and of the full size the figure in the documents."""
    ceiling = script("cpu_ceiling")
    visual = open_clip.create_model("ViT-B-16-quickgelu").visual.eval()
    for parameter in visual.parameters():
        parameter.requires_grad_(False)
    # Gradients are not forbidden: torch's own operators are used, and of attention those that the counter knows.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        DualPathVision((12,), 5, ("vv",))(visual, torch.randn(1, 3, 160, 160))
    counted = counter.get_total_flops()
    expected = ceiling.operations(ceiling.products(visual, 160, 5))
    assert counted == pytest.approx(expected, rel=0.01)  # beside: the class token alone in the last block
    with torch.device("meta"):
        large = CLIP(**open_clip.get_model_config("ViT-L-14-336-quickgelu")).visual
    assert ceiling.operations(ceiling.products(large, 518, 6)) == pytest.approx(1.183e12, rel=0.002)


def test_a_tiny_run(
    script: Callable[[str], ModuleType], thin_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(thin_model), "--image-size", "84", "--dpam-start", "2", "--repeats", "1"]
    assert script("cpu_ceiling").main([*arguments, "--threads", "1", "--json", str(tmp_path / "ceiling.json")]) == 0
    record = json.loads((tmp_path / "ceiling.json").read_text())
    assert record["share of the ceiling"] == pytest.approx(record["products s"] / min(record["pass s"]))
    assert all(rate > 0 for rate in record["products GFLOP/s"].values())
    assert "of products alone" in capsys.readouterr().out
