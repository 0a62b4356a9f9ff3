# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.label.ranking import (
    Candidate,
    DescribedNetwork,
    highest_score,
    most_diverse,
    most_uncertain,
    rested,
    short_descriptor,
)

SCORED = [Candidate("a", 0.2), Candidate("b", 0.9), Candidate("c", None), Candidate("d", 0.55), Candidate("e", 0.2)]


def names(ranked: list[tuple[Candidate, float | None]]) -> str:
    return "".join(candidate.name for candidate, _ in ranked)


def test_highest_score_first_and_unscored_last() -> None:
    assert names(highest_score(SCORED)) == "bdaec"
    assert [value for _, value in highest_score(SCORED)] == [0.9, 0.55, 0.2, 0.2, None]


@pytest.mark.parametrize(("threshold", "order"), [(0.5, "daebc"), (0.8, "bdaec"), (0.1, "aedbc")])
def test_nearest_to_the_threshold_first(threshold: float, order: str) -> None:
    assert names(most_uncertain(SCORED, threshold)) == order


def test_uncertainty_is_1_at_the_threshold_and_0_at_the_far_end() -> None:
    values = dict(most_uncertain([Candidate("at", 0.7), Candidate("far", 0.0), Candidate("top", 1.0)], 0.7))
    found = {candidate.name: value for candidate, value in values.items()}
    assert found["at"] == pytest.approx(1)
    assert found["far"] == pytest.approx(0)
    assert found["top"] == pytest.approx(1 - 0.3 / 0.7)


@pytest.mark.parametrize("threshold", [0.0, 1.0, float("nan")])
def test_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        most_uncertain(SCORED, threshold)


def test_diverse_goes_farthest_from_what_is_labelled() -> None:
    angles = {"near": 5, "middle": 60, "far": 170}
    candidates = [
        Candidate(name, 0.5, (np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle)))) for name, angle in angles.items()
    ]
    ranked = most_diverse(candidates, [(2.0, 0.0), (1.0,)])  # of another length: of another backbone
    # After "far", "middle" is 60 degrees from the labelled one.
    assert [candidate.name for candidate, _ in ranked] == ["far", "middle", "near"]
    expected = [1 - np.cos(np.deg2rad(170)), 1 - np.cos(np.deg2rad(60)), 1 - np.cos(np.deg2rad(5))]
    np.testing.assert_allclose([value for _, value in ranked], expected)


def test_diverse_without_labels_begins_with_the_highest_score() -> None:
    candidates = [
        Candidate("a", 0.1, (1, 0)),
        Candidate("b", 0.8, (0, 1)),
        Candidate("c", 0.9),
        Candidate("d", 0.2, (0, 2)),
    ]
    ranked = most_diverse(candidates, [])
    assert names(ranked) == "badc"  # d is like b, c cannot be compared
    assert ranked[0][1] is None
    assert ranked[-1][1] is None
    assert most_diverse([], []) == []
    assert names(most_diverse([Candidate("x"), Candidate("y", 0.1)], [(1, 0)])) == "yx"


def test_diverse_equals_plain_k_centre_greedy() -> None:
    rng = np.random.default_rng(0)
    vectors, labelled = rng.standard_normal((12, 5)), rng.standard_normal((3, 5))
    ranked = most_diverse([Candidate(f"{i:02d}", 0.5, tuple(v)) for i, v in enumerate(vectors)], labelled.tolist())

    def distance(u: np.ndarray, v: np.ndarray) -> float:
        return float(1 - u @ v / np.linalg.norm(u) / np.linalg.norm(v))

    chosen, left = list(labelled), list(range(12))
    for candidate, value in ranked:
        best = max(left, key=lambda i: min(distance(vectors[i], c) for c in chosen))
        assert candidate.name == f"{best:02d}"
        assert value == pytest.approx(min(distance(vectors[best], c) for c in chosen))
        chosen.append(vectors[best])
        left.remove(best)


def test_who_was_offered_lately_rests() -> None:
    candidates = [Candidate("never"), Candidate("now", offered=1000.0), Candidate("before", offered=900.0)]
    assert [candidate.name for candidate in rested(candidates, 1050.0, pause=100)] == ["never", "before"]
    assert [candidate.name for candidate in rested(candidates[1:], 1010.0, pause=500)] == ["before"]
    assert rested([], 0.0) == []


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
