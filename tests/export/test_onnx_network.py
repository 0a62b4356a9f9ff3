# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from monai_anomalyclip.export import ONNXNetwork
from monai_anomalyclip.export.onnx_file import chosen_providers
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.networks import AnomalyCLIP

Exported = Callable[..., tuple[Path, dict[str, Any]]]


def test_takes_the_place_of_the_network(exported: Exported, tiny: AnomalyCLIP) -> None:
    network = ONNXNetwork(exported("model.onnx")[0])
    volume = torch.rand(1, 1, 20, 30, 5)
    inferer = AnomalySliceInferer(network.image_size, slice_axis=2, slice_batch_size=2)
    expected, actual = inferer(volume, tiny), inferer(volume, network)
    assert actual["anomaly_map"].shape == volume.shape
    for key in ("anomaly_map", "anomaly_score"):
        torch.testing.assert_close(actual[key], expected[key], rtol=0, atol=1e-4)
    image = torch.randn(2, 3, 84, 84)
    torch.testing.assert_close(network(image), tiny(image).detach(), rtol=0, atol=1e-4)


def test_says_what_it_was_made_from(exported: Exported, tiny: AnomalyCLIP) -> None:
    path, description = exported("model.onnx")
    network = ONNXNetwork(path)
    assert network.backbone_sha256 == tiny.backbone_sha256
    assert network.settings["exported_prompts_sha256"] == description["prompts_sha256"]
    assert network.settings["normal_words"] == ["object"]
    assert network.settings["exported_method"] == "AnomalyCLIP"


@pytest.mark.parametrize("shape", [(3, 84, 84), (1, 1, 84, 84), (1, 3, 42, 42)])
def test_other_shapes_are_refused(exported: Exported, shape: tuple[int, ...]) -> None:
    network = ONNXNetwork(exported("model.onnx")[0])
    with pytest.raises(ValueError, match=r"takes images \(B, 3, 84, 84\), got shape"):
        network.predict(torch.zeros(shape))


def test_it_cannot_be_compiled(exported: Exported) -> None:
    network = ONNXNetwork(exported("model.onnx")[0])
    network.compile_encoder(False)
    with pytest.raises(ValueError, match="cannot be compiled"):
        network.compile_encoder()


CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


@pytest.mark.parametrize(
    ("there", "device", "listed", "chosen"),
    [
        ([CPU], "cpu", None, [CPU]),
        ([TENSORRT, CUDA, CPU], "cpu", None, [CPU]),
        ([TENSORRT, CUDA, CPU], "cuda:1", None, [CUDA, CPU]),  # an engine is built on request alone
        ([TENSORRT, CUDA, CPU], "cuda", [TENSORRT, CUDA], [TENSORRT, CUDA]),
        ([CPU], "cuda", None, [CPU]),
    ],
)
def test_providers_of_a_device(
    there: list[str],
    device: str,
    listed: list[str] | None,
    chosen: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    with caplog.at_level(logging.WARNING):
        assert chosen_providers(device, listed) == chosen
    assert ("computes on the CPU: install onnxruntime-gpu" in caplog.text) == (device == "cuda" and CUDA not in there)


def test_a_provider_that_is_not_there_is_refused(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else onnxruntime would compute on the CPU, with a warning of its own at most."""
    path = exported("model.onnx")[0]
    with pytest.raises(ValueError, match=f"no '{TENSORRT}' here, only .*{CPU}"):
        ONNXNetwork(path, providers=[TENSORRT, CPU])
    ONNXNetwork(path, providers=[CPU])


def test_a_provider_that_does_not_start_is_told(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As CUDA's does not where a library of CUDA is missing."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    image = torch.randn(1, 3, 84, 84)
    path = exported("model.onnx")[0]
    with caplog.at_level(logging.WARNING), pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        network = ONNXNetwork(path, device="cuda")
    assert f"onnxruntime could not start {CUDA} and computes without." in caplog.text
    assert torch.equal(network(image), ONNXNetwork(path)(image))


def test_openvino_computes_the_same(exported: Exported, tiny: AnomalyCLIP) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed (the extra openvino)")
    network = ONNXNetwork(exported("model.onnx")[0], runtime="openvino")
    for count in (1, 3):
        image = torch.randn(count, 3, 84, 84)
        with torch.no_grad():
            expected = tiny.predict(image)
        actual = network.predict(image)
        for key in ("anomaly_map", "anomaly_score"):
            assert actual[key].dtype == torch.float32
            torch.testing.assert_close(actual[key], expected[key], rtol=0, atol=1e-4)


def test_openvino_that_is_missing(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeError, match="OpenVINO is not installed: pip install openvino"):
        ONNXNetwork(exported("model.onnx")[0], runtime="openvino")
