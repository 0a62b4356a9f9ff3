# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomalyclip.export import ONNXNetwork
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
