# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.label.ranking import DescribedNetwork, short_descriptor


def test_descriptor_nearly_keeps_angles() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 768, generator=generator)
    vectors[1::2] = vectors[::2] + 0.3 * vectors[1::2]  # pairs that are alike
    short = np.array([short_descriptor(vector) for vector in vectors])
    assert short.shape == (40, 32)
    assert short_descriptor(vectors[0] * 7) == short[0].tolist()
    unit = short / np.linalg.norm(short, axis=1, keepdims=True)
    similar = unit @ unit.T
    for first in range(0, 40, 2):
        assert similar[first].argsort()[-2] == first + 1


def test_network_predicts_the_same_and_keeps_the_features_of_the_highest_score() -> None:
    network = demo_network(deep_prompt_depth=4).eval()
    described = DescribedNetwork(network)
    images = torch.randn(5, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network.predict(images)
        parts = [described.predict(part) for part in images.split(2)]
        features, _ = network.encode_image(images)
    for key in ("anomaly_map", "anomaly_score"):
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), expected[key])
    assert described.features is not None
    torch.testing.assert_close(described.features, features[expected["anomaly_score"].argmax()])


class _Comparisons(TorchDispatchMode):
    """Counts the comparisons of tensors as wholes, for which a GPU has to finish first."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function._schema.name == "aten::equal"
        return function(*args, **(kwargs or {}))


def test_prompts_are_looked_at_once_for_all_batches_of_a_volume() -> None:
    described = DescribedNetwork(demo_network(deep_prompt_depth=4).eval())
    volume = torch.rand(1, 1, 40, 40, 6, generator=torch.Generator().manual_seed(2))
    inferer = AnomalySliceInferer(112, slice_axis=2, slice_batch_size=2, sigma=1.0)
    expected = inferer(volume, described.network)
    with torch.inference_mode(), _Comparisons() as comparisons:
        found = inferer(volume, described)
    assert comparisons.count == 1
    assert torch.equal(found["anomaly_map"], expected["anomaly_map"])
