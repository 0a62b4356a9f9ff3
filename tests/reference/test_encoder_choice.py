# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.reference import NormalReference, clip_encoder
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
