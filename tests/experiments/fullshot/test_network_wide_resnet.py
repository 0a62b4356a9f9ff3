# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Backbone weights from local files: every layout, and every file that must not be taken."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from monai_anomalyclip.experiments.fullshot import BACKBONES, RD4AD, PatchCore
from monai_anomalyclip.experiments.fullshot.network import fill_backbone, weights_sha256

State = dict[str, Tensor]


def extractor(name: str = "resnet18") -> nn.Module:
    network: nn.Module = timm.create_model(name, pretrained=False, features_only=True, out_indices=(2, 3))
    return network


@pytest.fixture
def state() -> State:
    """torchvision's whole ResNet-18, with its last stage and its classifier, every tensor drawn at random."""
    generator = torch.Generator().manual_seed(4)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in resnet18(weights=None).state_dict().items()
    }


LAYOUTS: dict[str, Callable[[State, Path], None]] = {
    "plain.pth": lambda state, path: torch.save(state, path),
    "old.pth": lambda state, path: torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path),
    "nested.pt": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "parallel.pth": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "plain.safetensors": lambda state, path: save_file(state, path),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_arrive(layout: str, state: State, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    LAYOUTS[layout](state, tmp_path / layout)
    network = extractor()
    fill_backbone(network, "resnet18", tmp_path / layout)
    loaded = network.state_dict()
    assert "layer3.1.bn2.weight" in loaded
    assert not any(key.startswith(("layer4", "fc")) for key in loaded)
    for key, value in loaded.items():
        assert torch.equal(value, state[key]), key
    assert not [warning for warning in recwarn if "random weights" in str(warning.message)]


@pytest.mark.parametrize("method", [PatchCore, RD4AD])
def test_methods_take_the_file(method: Any, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anomalib", reason="anomalib (the extra fullshot) is not installed")

    def connect(*given: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    torch.save(state, tmp_path / "weights.pth")
    network = method("resnet18", weights=tmp_path / "weights.pth", image_size=64)
    filled = {key: value for key, value in network.state_dict().items() if "feature_extractor.layer2" in key}
    assert len(filled) > 20
    for key, value in filled.items():
        assert torch.equal(value, state[key.split("feature_extractor.")[-1]])
    with pytest.warns(UserWarning, match="'resnet18' has random weights"):
        other = method("resnet18", weights=None, image_size=64)
    assert not all(torch.equal(other.state_dict()[key], value) for key, value in filled.items())


@pytest.mark.parametrize("method", [PatchCore, RD4AD])
def test_random_weights_must_be_asked_for(method: Any) -> None:
    with pytest.raises(TypeError, match="weights"):
        method("resnet18", image_size=64)


def test_another_backbone_is_refused(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    network = extractor("resnet50")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"does not fit the backbone 'resnet50': \d+ of \d+ tensors are missing"):
        fill_backbone(network, "resnet50", tmp_path / "weights.pth")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_missing_tensor_is_named(state: State, tmp_path: Path) -> None:
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"1 of \d+ tensors are missing .* the first of them layer2\.0\.conv1\.weight"):
        fill_backbone(extractor(), "resnet18", tmp_path / "weights.pth")


def test_values_that_are_not_finite_are_refused(state: State, tmp_path: Path) -> None:
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.inf
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="are not all finite"):
        fill_backbone(extractor(), "resnet18", tmp_path / "weights.pth")


class Harmful:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    torch.save({"layer1": Harmful(tmp_path / "touched")}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="cannot be read safely"):
        fill_backbone(extractor(), "resnet18", tmp_path / "weights.pth")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_a_damaged_file_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read safely"):
        fill_backbone(extractor(), "resnet18", tmp_path / name)


def test_something_else_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="cannot be read safely"):
        fill_backbone(extractor(), "resnet18", tmp_path / "weights.pth")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There are no backbone weights at .* 'none' for random weights"):
        fill_backbone(extractor(), "resnet18", tmp_path / "absent.pth")
    with pytest.raises(FileNotFoundError, match="There are no backbone weights"):
        weights_sha256(tmp_path / "absent.pth")


def test_sha256_tells_weights_apart(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"some weights")
    assert weights_sha256(tmp_path / "weights.pth") == hashlib.sha256(b"some weights").hexdigest()
    assert weights_sha256(None) is None


def test_backbones_are_those_of_anomalib_and_timm() -> None:
    pytest.importorskip("anomalib", reason="anomalib (the extra fullshot) is not installed")
    from anomalib.models.components.backbone import get_decoder

    for name in BACKBONES:
        assert timm.is_model(name)
        with torch.device("meta"):  # no memory is filled
            assert get_decoder(name)
    with pytest.raises(ValueError, match="'vgg16' is not one of wide_resnet50_2"):
        PatchCore("vgg16", weights=None)
