# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_anomalyclip.label.ranking import Candidate, highest_score, most_diverse, most_uncertain, rested

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
