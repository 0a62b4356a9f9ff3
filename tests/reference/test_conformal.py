# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from monai_anomalyclip.reference import ConformalScores, fewest_normals, pixel_threshold

TRIALS = 2000


@pytest.mark.parametrize(
    ("score", "p"), [(5.0, 1 / 5), (4.0, 2 / 5), (3.5, 2 / 5), (3.0, 3 / 5), (1.0, 1.0), (0.0, 1.0)]
)
def test_by_hand(score: float, p: float) -> None:
    assert ConformalScores([3.0, 1.0, 4.0, 2.0]).p_value(score) == pytest.approx(p)


def test_an_equal_score_counts_as_at_least_as_far() -> None:
    assert ConformalScores([1.0, 1.0, 1.0, 0.0]).p_value(1.0) == pytest.approx(4 / 5)


def test_images_of_a_patient_share_one_vote() -> None:
    grouped = ConformalScores([1, 2, 3, 4, 10, 10, 0], ["a", "a", "a", "a", "b", "c", "d"])
    assert grouped.k == 4
    assert grouped.smallest_p == pytest.approx(1 / 5)
    assert grouped.p_value(2.5) == pytest.approx((1 + 0.5 + 1 + 1 + 0) / 5)


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.01, 99), (1 / 3, 4), (0.9, 4)])
def test_how_many_normals_a_rate_needs(rate: float, needed: int) -> None:
    assert fewest_normals(rate) == needed
    assert not ConformalScores(np.zeros(needed - 1)).may_flag(rate)
    enough = ConformalScores(np.arange(needed))
    assert enough.may_flag(rate)
    assert enough.flags(needed + 1.0, rate)
    with pytest.raises(ValueError, match=rf"needs {needed} normal images, there are {needed - 1}"):
        ConformalScores(np.arange(needed - 1)).flags(1.0, rate)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_what_is_no_rate(rate: float) -> None:
    with pytest.raises(ValueError, match="lies above 0 and below 1"):
        fewest_normals(rate)
    with pytest.raises(ValueError, match="lies above 0 and below 1"):
        pixel_threshold(np.zeros((5, 2, 2)), rate)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_normals_only_rank(k: int) -> None:
    few = ConformalScores(np.arange(k))
    assert few.p_value(100.0) is None
    assert "only ranks images: a p-value needs at least 4" in few.sentence(None)


def test_odd_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="no normal image to compare with"):
        ConformalScores([])
    with pytest.raises(ValueError, match="1 scores of normal images are NaN"):
        ConformalScores([1.0, float("nan")])
    with pytest.raises(ValueError, match="2 scores of normal images but 1 groups"):
        ConformalScores([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="The score is NaN"):
        ConformalScores([1.0, 2.0]).p_value(float("nan"))


@pytest.mark.parametrize(("k", "rate"), [(9, 0.1), (19, 0.05), (19, 0.1), (32, 0.1), (32, 0.2), (7, 0.25)])
def test_false_positives_are_the_nominal_share(k: int, rate: float) -> None:
    """Exact: without ties the number flagged in 2,000 trials is binomial, its share floor(rate (k + 1)) / (k + 1)."""
    generator = np.random.default_rng([k, int(1000 * rate)])
    scores = np.exp(2 * generator.standard_normal((TRIALS, k + 1)))  # heavy-tailed, as distances are
    flagged = sum(ConformalScores(row[:k]).flags(float(row[k]), rate) for row in scores)
    share = np.floor(rate * (k + 1) + 1e-9) / (k + 1)
    low, high = binom.ppf([0.0005, 0.9995], TRIALS, share)
    assert low <= flagged <= high
    assert share <= rate


def test_false_positives_of_patients_with_several_images() -> None:
    """A patient's images are alike; the test image is one of a new patient's."""
    generator = np.random.default_rng(0)
    flagged, k, rate = 0, 19, 0.1
    for _ in range(TRIALS):
        patients = generator.standard_normal(k + 1)
        counts = generator.integers(1, 6, k)
        scores = np.repeat(patients[:k], counts) + 0.3 * generator.standard_normal(counts.sum())
        own = patients[k] + 0.3 * generator.standard_normal()
        flagged += ConformalScores(scores, np.repeat(np.arange(k), counts).tolist()).flags(own, rate)
    assert flagged <= binom.ppf(0.9995, TRIALS, rate)
    assert flagged >= binom.ppf(0.0005, TRIALS, 0.8 * rate)  # means over images are a little cautious


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.34])
def test_threshold_is_where_flags_begin(rate: float) -> None:
    generator = np.random.default_rng(1)
    scores = np.round(generator.random(25), 1)  # with ties
    calibration = ConformalScores(scores, (np.arange(25) // 2).tolist())
    threshold = calibration.threshold(rate)
    for score in np.linspace(-0.05, 1.05, 300):
        assert calibration.flags(float(score), rate) == (score > threshold)


def test_without_a_group_and_the_largest_of_each() -> None:
    grouped = ConformalScores([1, 5, 3, 2, 0], ["a", "a", "b", "c", "c"])
    rest = grouped.without(["a"])
    assert rest.scores.tolist() == [3, 2, 0]
    assert rest.k == 2
    assert grouped.largest_of_each().scores.tolist() == [5, 3, 2]
    with pytest.raises(ValueError, match="no normal image to compare with"):
        rest.without(["b", "c"])


def test_sentences() -> None:
    sixteen = ConformalScores(np.arange(16))
    assert sixteen.sentence(1 / 17) == (
        "Compared with your 16 normal images, p = 0.059 is the smallest value that 16 allow. "
        "Unlike your normals does not mean disease."
    )
    assert sixteen.sentence(4 / 17) == (
        "Compared with your 16 normal images, p = 0.24: 3 of them are at least as far from the others as this one. "
        "Unlike your normals does not mean disease."
    )


def test_kept_in_a_file_without_names(tmp_path: Path) -> None:
    own = ConformalScores([0.25, 0.5, 0.75], ["QUIMBY", "QUIMBY", "ROE"], unit="patients")
    own.save(tmp_path / "margins.json")
    assert "QUIMBY" not in (tmp_path / "margins.json").read_text()
    read = ConformalScores.load(tmp_path / "margins.json")
    assert read.scores.tolist() == own.scores.tolist()
    assert (read.k, read.unit) == (2, "patients")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "other"}', '{"format": "monai_anomalyclip.conformal", "scores": ["x"]}', "[" * 9999],
)
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"'x.json' holds no conformal scores"):
        ConformalScores.load(tmp_path / "x.json")
    nan = {"format": "monai_anomalyclip.conformal", "unit": "x", "scores": [float("nan")], "groups": [0]}
    (tmp_path / "x.json").write_text(json.dumps(nan))
    with pytest.raises(ValueError, match="holds no conformal scores"):
        ConformalScores.load(tmp_path / "x.json")


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.5])
def test_pixel_threshold_flags_at_most_its_share(rate: float) -> None:
    maps = np.random.default_rng(0).random((6, 20, 20)).astype(np.float32)
    threshold = pixel_threshold(maps, rate)
    flagged = int((maps >= np.float32(threshold)).sum())
    assert flagged == int(rate * maps.size)  # no ties: as many as are allowed


def test_pixel_threshold_of_ties_and_of_too_few() -> None:
    assert pixel_threshold(np.ones((4, 5, 5)), 0.5) > 1  # half of equal pixels cannot be flagged
    with pytest.raises(ValueError, match="at least 4 normal images, got 3"):
        pixel_threshold(np.zeros((3, 5, 5)), 0.1)
    with pytest.raises(ValueError, match="hold NaN"):
        pixel_threshold(np.full((4, 5, 5), np.nan), 0.1)
