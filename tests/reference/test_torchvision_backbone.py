# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from monai_anomalyclip.reference import torchvision_encoder

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


@pytest.mark.parametrize(
    ("model", "nodes"),
    [
        ("resnet18", ["layer2", "layer3", "layer4"]),
        ("mobilenet_v3_small", ["features.3", "features.8", "features.12"]),
        ("convnext_tiny", ["features.3", "features.5", "features.7"]),
    ],
)
def test_the_last_map_of_each_of_the_coarsest_resolutions(model: str, nodes: list[str]) -> None:
    encoder = torchvision_encoder(model, image_size=96, grid=6)
    assert encoder.identity.settings["nodes"] == nodes
    maps = encoder.feature_maps(torch.rand(1, 3, 96, 96))
    assert [stage.shape[-1] for stage in maps] == [12, 6, 3]
    assert encoder(torch.rand(2, 3, 40, 40)).shape == (2, 36, sum(stage.shape[1] for stage in maps))


def test_a_file_of_weights_is_used(tmp_path: Path) -> None:
    whole = torchvision.models.resnet18(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    encoder = torchvision_encoder("resnet18", tmp_path / "w.pth", nodes=["layer1"], image_size=64, grid=4)
    square = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        stem = whole.maxpool(whole.relu(whole.bn1(whole.conv1((square - mean.view(3, 1, 1)) / std.view(3, 1, 1)))))
        wanted = whole.layer1(stem)
    assert torch.allclose(encoder.feature_maps(square)[0], wanted, atol=1e-4)
    with pytest.raises(ValueError, match="belong to another network"):
        torchvision_encoder("resnet34", tmp_path / "w.pth")


def test_what_torchvision_does_not_have() -> None:
    with pytest.raises(ValueError, match="torchvision has no classifier 'resnet19'"):
        torchvision_encoder("resnet19")
    with pytest.raises(ValueError, match="resnet18 has no layers layer9"):
        torchvision_encoder("resnet18", nodes=["layer9"])
    with pytest.raises(ValueError, match="vit_b_16 gives no feature maps"):
        torchvision_encoder("vit_b_16", image_size=224)
