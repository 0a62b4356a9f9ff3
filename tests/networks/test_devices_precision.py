# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch

from monai_anomalyclip.demo.network import demo_network
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.networks import AnomalyCLIP, resolve_precision
from monai_anomalyclip.networks.devices import autocast

MAP_MEAN, SCORE = 2e-3, 5e-3  # the agreement with float32 that is promised


def demo() -> AnomalyCLIP:
    return demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4)


def base() -> AnomalyCLIP:
    """ViT-B/16 with random weights, at a small image size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are meant
        return AnomalyCLIP("ViT-B-16-quickgelu", None, image_size=112, feature_layers=(6, 12), deep_prompt_depth=3)


@pytest.mark.parametrize("build", [demo, base])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_agreement_with_float32(build: Callable[[], AnomalyCLIP], precision: str) -> None:
    torch.manual_seed(0)
    network = build().eval()
    network.temperature = 0.01  # random prompts tell little apart: a harder test than with 0.07
    blobs = torch.nn.functional.interpolate(torch.rand(3, 3, 9, 9), (150, 130), mode="bicubic").clamp(0, 1)
    exact, coarse = (
        AnomalySliceInferer(network.image_size, sigma=0, precision=name)(blobs, network)
        for name in ("float32", precision)
    )
    assert exact["anomaly_map"].std() > 2e-3  # there is something to agree on
    difference = (exact["anomaly_map"] - coarse["anomaly_map"]).abs()
    assert 0 < difference.mean() <= MAP_MEAN
    assert (exact["anomaly_score"] - coarse["anomaly_score"]).abs().max() <= SCORE
    assert coarse["anomaly_map"].dtype == torch.float32


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_auto_on_gpus(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", "cuda:1") == expected
    assert resolve_precision("float32", "cuda:1") == "float32"


@pytest.mark.parametrize(("amx", "avx512"), [(False, False), (True, False), (False, True)])
def test_auto_on_cpus(monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert resolve_precision("auto", torch.device("cpu")) == ("bfloat16" if amx else "float32")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("auto", "mps") == "float32"


def test_autocast_multiplies_in_the_asked_precision() -> None:
    left = torch.rand(4, 4)
    for precision, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        with autocast(precision, "cpu"):
            assert (left @ left).dtype == expected


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="'half' is not one of auto, float32, bfloat16, float16"):
        AnomalySliceInferer(28, precision="half")
    with pytest.raises(ValueError, match="'half' is not one of"):
        resolve_precision("half", "cpu")
