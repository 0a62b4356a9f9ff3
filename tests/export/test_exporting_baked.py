# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_anomalyclip.export import BakedNetwork
from monai_anomalyclip.networks import AnomalyCLIP


def test_computes_what_the_network_computes_at_every_size(small: AnomalyCLIP) -> None:
    for size in (28, 42, 56):
        image = torch.randn(2, 3, size, size)
        anomaly_map, score = BakedNetwork(small, size)(image)
        expected = small.predict(image)
        torch.testing.assert_close(anomaly_map, expected["anomaly_map"], rtol=0, atol=1e-6)
        torch.testing.assert_close(score, expected["anomaly_score"], rtol=0, atol=1e-6)


def test_prompts_are_constants_from_then_on(small: AnomalyCLIP) -> None:
    image = torch.randn(1, 3, 42, 42)
    baked = BakedNetwork(small, 42)
    before = baked(image)[1]
    with torch.no_grad():
        small.prompts.context_normal.normal_()
    assert torch.equal(baked(image)[1], before)
    assert not torch.allclose(small.predict(image)["anomaly_score"], before)


def test_nothing_of_the_text_tower_is_left_and_the_network_is_as_it_was(small: AnomalyCLIP) -> None:
    learned = list(small.state_dict())
    baked = BakedNetwork(small, 42)
    names = [name for name, _ in baked.named_parameters()]
    assert names
    assert all(name.startswith("network.clip.visual.") for name in names)
    assert sorted(baked.state_dict()) == sorted([*names, "text_features"])
    assert list(small.state_dict()) == learned
    assert small.clip.token_embedding is not None
    assert "encode_prompts" not in vars(small)


@pytest.mark.parametrize("size", [0, -14, 20, 43])
def test_wrong_size(small: AnomalyCLIP, size: int) -> None:
    with pytest.raises(ValueError, match=f"image size {size} is no multiple of the patch size 14"):
        BakedNetwork(small, size)
