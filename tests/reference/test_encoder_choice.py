# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

from monai_anomalyclip.demo import demo_backbone, demo_network
from monai_anomalyclip.experiments.baselines.winclip import WinCLIP
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.reference import NormalReference, clip_encoder, make_encoder, torchvision_encoder
from monai_anomalyclip.transforms.clip_preprocess import clip_normalize_resize


@pytest.fixture(scope="module")
def network() -> AnomalyCLIP:
    return demo_network(deep_prompt_depth=4)


def test_features_are_the_networks_patch_tokens(network: AnomalyCLIP) -> None:
    image = torch.rand(2, 3, 90, 130)
    side = network.image_size // network.patch_size
    seen = clip_normalize_resize(image, (network.image_size,) * 2)
    with torch.no_grad():
        tokens = network.encode_image(seen)[1]
    encoder = clip_encoder(network)
    for found, wanted in zip(encoder.feature_maps(image), tokens, strict=True):
        assert torch.allclose(found.flatten(2).transpose(1, 2), wanted[:, 1:], atol=1e-5)
    assert encoder.grid == (min(18, side),) * 2
    assert encoder(image).shape[:2] == (2, encoder.grid[0] ** 2)


def test_kinds_of_an_ensemble_lie_side_by_side() -> None:
    ensemble = demo_network(deep_prompt_depth=4, dpam_attention="qq+vv")
    single = clip_encoder(demo_network(deep_prompt_depth=4))(torch.rand(1, 3, 64, 64))
    both = clip_encoder(ensemble)(torch.rand(1, 3, 64, 64))
    assert both.shape[-1] == 2 * single.shape[-1]


def test_the_network_is_left_as_it_is(network: AnomalyCLIP) -> None:
    clip_encoder(network)
    assert all(parameter.requires_grad for parameter in network.prompts.parameters())


def test_identity_is_that_of_tower_and_taps_but_not_of_prompts(network: AnomalyCLIP) -> None:
    own = clip_encoder(network).identity
    other = demo_network(deep_prompt_depth=4)
    torch.nn.init.normal_(other.prompts.context_normal)
    assert own.difference(clip_encoder(other).identity) == ""
    assert "dpam_attention" in own.difference(
        clip_encoder(demo_network(deep_prompt_depth=4, dpam_attention="qq")).identity
    )


def test_a_reference_of_the_tower(network: AnomalyCLIP) -> None:
    images = [torch.rand(3, 40, 40) for _ in range(5)]
    reference = NormalReference.build(images, encoder=clip_encoder(network))
    found = reference.score(torch.rand(3, 40, 40))
    assert 0 < found.score < 1
    assert found.k == 5


def test_the_tower_of_a_bundle_by_name(face_bundle: Path, tmp_path: Path) -> None:
    """What it sees is what the bundle's network sees; a reference of it is loaded with the bundle as its weights."""
    encoder = make_encoder(f"clip:{face_bundle}", grid=4)
    image = torch.rand(3, 40, 40)
    wanted = clip_encoder(demo_network(deep_prompt_depth=4), grid=4)
    assert encoder.identity.difference(wanted.identity) == ""
    assert torch.equal(encoder(image[None]), wanted(image[None]))
    reference = NormalReference.build([torch.rand(3, 40, 40) for _ in range(5)], encoder=encoder)
    reference.save(tmp_path / "a.reference")
    again = NormalReference.load(tmp_path / "a.reference", weights=face_bundle)
    assert again.encoder.grid == (4, 4)
    assert again.score(image).score == pytest.approx(reference.score(image).score)
    with pytest.raises(FileNotFoundError, match=r"vision tower .*: give the bundle that it belongs to"):
        NormalReference.load(tmp_path / "a.reference")


def test_a_bundle_that_cannot_be_used_says_why(copy_bundle: Callable[[Path], Path], tmp_path: Path) -> None:
    """Not with MONAI's own sentence, which says that an expression failed."""
    with pytest.raises(FileNotFoundError, match="There is no bundle at"):
        make_encoder(f"clip:{tmp_path}")
    config = copy_bundle(tmp_path) / "configs" / "inference.json"
    content = json.loads(config.read_text())
    content["network_def"] = "$monai_anomalyclip.demo.demo_network(deep_prompt_depth=99)"
    config.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="99"):
        make_encoder(f"clip:{config.parents[1]}")


def test_a_network_without_tapped_layers() -> None:
    config, weights = demo_backbone()
    with pytest.raises(ValueError, match="WinCLIP does not say which layers it taps: give an AnomalyCLIP network"):
        clip_encoder(WinCLIP(config["clip"], weights, image_size=config["image_size"]))


def test_backbones_by_name(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    settings = {"nodes": ["layer1"], "image_size": 64, "grid": 4}
    found = make_encoder("torchvision:resnet18", tmp_path / "w.pth", **settings)
    wanted = torchvision_encoder("resnet18", tmp_path / "w.pth", **settings)  # type: ignore[arg-type]
    assert found.identity == wanted.identity
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(found(image), wanted(image))
    for name in ("resnet18", "clip:", "torchvision:"):
        with pytest.raises(ValueError, match=f"There is no encoder '{name}': efficientnet-lite0, "):
            make_encoder(name)
