# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_anomalyclip.export.agreement import Agreement, check_batches, measure_agreement, predict_exactly
from monai_anomalyclip.networks import AnomalyCLIP


def test_differences_are_those_that_were_made(small: AnomalyCLIP) -> None:
    batches = check_batches(42)
    expected = predict_exactly(small, batches)
    computed = [(anomaly_map.clone(), score.clone()) for anomaly_map, score in expected]
    for anomaly_map, score in computed:
        anomaly_map[:, :, 0, 0] += 0.25
        score[-1] -= 0.125
    agreement = measure_agreement(expected, computed)
    assert agreement.images == 4
    assert agreement.map_max == pytest.approx(0.25)
    assert agreement.map_mean == pytest.approx(0.25 / 42**2)
    assert agreement.score_max == pytest.approx(0.125)
    assert not agreement.exact


@pytest.mark.parametrize(
    ("map_max", "score_max", "exact"),
    [(1e-4, 1e-4, True), (2e-4, 0, False), (0, 2e-4, False), (float("nan"), 0, False), (0, float("nan"), False)],
)
def test_exact_is_a_bound_on_both(map_max: float, score_max: float, exact: bool) -> None:
    assert Agreement(4, 0.0, map_max, score_max).exact is exact


def test_pytorch_gives_map_and_score_of_each_batch(small: AnomalyCLIP) -> None:
    batches = check_batches(42)
    results = predict_exactly(small, batches)
    for batch, (anomaly_map, score) in zip(batches, results, strict=True):
        with torch.no_grad():
            expected = small.predict(batch)
        assert torch.equal(anomaly_map, expected["anomaly_map"])
        assert torch.equal(score, expected["anomaly_score"])


def test_other_shapes_are_told() -> None:
    expected = [(torch.zeros(1, 1, 42, 42), torch.zeros(1))]
    with pytest.raises(ValueError, match=r"returns shapes \(1, 42, 42\)"):
        measure_agreement(expected, [(torch.zeros(1, 42, 42), torch.zeros(1))])


def test_batches_differ_and_are_normalised() -> None:
    one, three = check_batches(56)
    assert one.shape == (1, 3, 56, 56)
    assert three.shape == (3, 3, 56, 56)
    images = torch.cat([one, three])
    assert all(not torch.equal(images[i], images[j]) for i in range(4) for j in range(i))
    assert images.min() < -1.4
    assert images.max() > 1.4
