# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip.writers.record import InputRecord
from monai_anomalyclip.writers.report import FRAME, common_scale, score_plot


def record(scores: Any, **changed: Any) -> InputRecord:
    fields = {"name": "a", "source": "dicom", "kind": "volume", "frames": len(scores), "scores": scores, **changed}
    return InputRecord(**fields)


def points(line: str) -> np.ndarray:
    """(n, 2) coordinates of an SVG path of straight lines."""
    assert re.fullmatch(r"M[\d.]+,[\d.]+(L[\d.]+,[\d.]+)+", line)
    return np.array([[float(value) for value in point.split(",")] for point in line[1:].split("L")])


def test_line_runs_from_edge_to_edge_and_values_lie_where_the_ticks_say() -> None:
    scores = np.array([0.31, 0.52, 0.4, 0.79, 0.33])
    one = record(scores, most_suspicious=[{"index": 3, "score": 0.79}, {"index": 1, "score": 0.52}])
    plot = score_plot(one, common_scale([one]))
    assert plot is not None
    (line,) = plot.lines
    drawn = points(line)
    np.testing.assert_allclose(drawn[:, 0], np.linspace(FRAME.left, FRAME.right, 5), atol=0.06)
    # The y of a score by straight interpolation between the ticks' own texts.
    ticks = [(float(tick.label), tick.y) for tick in plot.y_ticks]
    expected = np.interp(scores, *zip(*ticks, strict=True))
    np.testing.assert_allclose(drawn[:, 1], expected, atol=0.06)
    assert [(mark.x, mark.y, mark.label) for mark in plot.peaks] == [
        (*drawn[3], "slice 3"),
        (*drawn[1], "slice 1"),
    ]
    assert [tick.label for tick in plot.x_ticks] == ["0", "1", "2", "3", "4"]
    assert (plot.title, plot.x_title) == ("Anomaly score by slice", "slice")
    assert plot.description == "Anomaly scores of 5 slices, from 0.310 to 0.790, the highest at slice 3."
    assert plot.areas[0].startswith(line)


def test_margins_are_plotted_where_scores_are_flat() -> None:
    """Equal scores lie on one line, their margins where the ticks say, also below 0 and above 1."""
    margins = [18.0, 40.0, -3.5, 25.0]
    one = record([1.0, 1.0, 0.03, 1.0], most_suspicious=[{"index": 1, "score": 1.0}])
    plot = score_plot(one, common_scale([one], {"a": margins}), margins)
    assert plot is not None
    ticks = [(float(tick.label), tick.y) for tick in plot.y_ticks]
    assert ticks[0][0] <= -3.5
    assert ticks[-1][0] >= 40
    np.testing.assert_allclose(points(plot.lines[0])[:, 1], np.interp(margins, *zip(*ticks, strict=True)), atol=0.06)
    assert plot.title == "Logit margin by slice"
    assert plot.description == "Logit margins of 4 slices, from -3.500 to 40.000, the highest at slice 1."


def test_cine_is_drawn_over_time() -> None:
    times = [1.0, 1.5, 4.0, 11.0]
    one = record(
        [0.1, 0.2, 0.9, 0.3], kind="cine", times=times, most_suspicious=[{"index": 2, "score": 0.9}], source="video"
    )
    plot = score_plot(one, common_scale([one]))
    assert plot is not None
    expected = np.interp(times, [1, 11], [FRAME.left, FRAME.right])
    np.testing.assert_allclose(points(plot.lines[0])[:, 0], expected, atol=0.06)
    assert [mark.label for mark in plot.peaks] == ["4.0 s"]
    assert [tick.label for tick in plot.x_ticks] == ["2", "4", "6", "8", "10"]
    assert (plot.title, plot.x_title) == ("Anomaly score over time", "seconds")
    frozen = score_plot(record([0.1, 0.2], kind="cine", times=[1.0, 1.0]), (0.0, 1.0))
    assert frozen is not None
    assert frozen.x_title == "frame"  # times that do not move say nothing


def test_frames_without_a_score_break_the_line() -> None:
    one = record([0.1, 0.2, None, 0.4, None, 0.5, 0.6])
    plot = score_plot(one, (0.0, 1.0))
    assert plot is not None
    assert [len(points(line)) for line in plot.lines] == [2, 2, 2]  # the lonely one is a line to itself: a dot
    assert len(set(map(tuple, points(plot.lines[1])))) == 1
    assert plot.description.startswith("Anomaly scores of 7 slices, from 0.100 to 0.600, the highest at slice 6")


@pytest.mark.parametrize("scores", [[0.5], [None, 0.5], [None, None]])
def test_nothing_to_plot(scores: list[float | None]) -> None:
    assert score_plot(record(scores), (0.0, 1.0)) is None


def test_long_films_keep_their_peaks() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.3, 12_345)
    scores[[77, 9_999]] = 0.8, 0.9
    one = record(scores, kind="cine", most_suspicious=[{"index": 9_999, "score": 0.9}])
    plot = score_plot(one, (0.0, 0.5, 1.0))
    assert plot is not None
    drawn = points(plot.lines[0])
    assert 300 < len(drawn) <= 400
    heights = (FRAME.bottom - drawn[:, 1]) / (FRAME.bottom - FRAME.top)
    assert sorted(heights)[-2:] == pytest.approx([0.8, 0.9], abs=1e-3)
    assert "Each point is the highest of 31 neighbouring frames." in plot.description
    assert len(plot.lines[0]) < 6000


def test_labels_of_marks_do_not_touch() -> None:
    scores = np.full(40, 0.5)
    peaks = [{"index": index, "score": 0.5 + 0.01 * index} for index in reversed(range(40))]
    plot = score_plot(record(scores, most_suspicious=peaks), (0.0, 1.0))
    assert plot is not None
    assert len(plot.peaks) == 40
    labelled = sorted(mark.label_x for mark in plot.peaks if mark.label)
    assert plot.peaks[0].label == "slice 39"
    assert min(np.diff(labelled), default=99) >= 62
    assert FRAME.left < labelled[0]
    assert labelled[-1] < FRAME.right


@pytest.mark.parametrize(
    ("scores", "low", "high"),
    [([0.41, 0.47], 0.36, 0.5), ([0.5, 0.5], 0.4, 0.6), ([0.0, 0.0], 0.0, 0.1), ([1.0, 1.0], 0.9, 1.1), ([0, 1], 0, 1)],
)
def test_scale_holds_all_scores_with_round_ticks(scores: list[float], low: float, high: float) -> None:
    scale = common_scale([record(scores[:1]), record(scores[1:])])
    assert low - 0.021 <= scale[0] <= min(scores)
    assert max(scores) <= scale[-1] <= high + 0.021
    assert 3 <= len(scale) <= 6
    assert list(scale) == sorted(scale)
    assert all(len(f"{tick:g}") <= 5 for tick in scale)


def test_scale_of_nothing() -> None:
    assert common_scale([])[0] == 0
    assert common_scale([])[-1] == 1
