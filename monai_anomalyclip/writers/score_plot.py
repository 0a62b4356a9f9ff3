# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Where the line, the ticks and the marks of a plot of scores by slice lie: for the page that draws it as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from monai_anomalyclip.writers.record import InputRecord

__all__ = ["FRAME", "Frame", "Mark", "ScorePlot", "common_scale", "score_plot"]

_MOST_POINTS = 400  # a longer film is drawn by the highest score of neighbouring frames
_LABEL = 62  # width of a label


class Frame(NamedTuple):
    """Size of the drawing, and where the frame of the plot lies in it."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


FRAME = Frame(430, 196, 36, 418, 24, 156)
"""Narrow, so that on a phone the labels, which shrink with the drawing, can be read."""


@dataclass(frozen=True)
class Mark:
    """A tick or a marked point: where it lies in the drawing, and what is written beside it, centred on `label_x`."""

    x: float
    y: float
    label: str = ""
    label_x: float = 0.0


@dataclass(frozen=True)
class ScorePlot:
    """The contents of a drawing of the size :data:`FRAME` says.

    Args:
        lines: paths (SVG ``d``) of the scores, one per run of frames that have one.
        areas: the same, closed along the lower edge.
        x_ticks: ticks of the lower edge.
        y_ticks: ticks of the left edge.
        peaks: the most suspicious frames; those without a higher one nearby have a label.
        title: what is plotted.
        x_title: unit of the lower edge.
        description: the plot in a sentence or two, for those who do not see it.
        low: what the left end of the lower edge stands for, a slice or seconds.
        high: what its right end stands for.
        times: of the frames, where the lower edge has seconds.
    """

    lines: tuple[str, ...]
    areas: tuple[str, ...]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    peaks: tuple[Mark, ...]
    title: str
    x_title: str
    description: str
    low: float
    high: float
    times: tuple[float, ...]


def common_scale(
    records: Iterable[InputRecord], margins: Mapping[str, Sequence[float]] | None = None
) -> tuple[float, ...]:
    """Ticks (ascending) of one scale for the plots of all records, so that those of one run can be compared.

    Args:
        records: whose scores are plotted.
        margins: of the logits by the records' names, when these are plotted instead.
    """
    values = [
        value
        for record in records
        for value in (record.scores if margins is None else margins.get(record.name, ()))
        if value is not None
    ]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = max(0.02, (high - low) / 20)
    low, high = low - room, high + room
    if margins is None:
        low, high = max(low, 0), min(high, 1)
    ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return tuple(float(tick) for tick in ticks)


def score_plot(record: InputRecord, scale: Sequence[float], margins: Sequence[float] | None = None) -> ScorePlot | None:
    """Lay out the plot of a record's scores by slice, by frame, or, for a cine with times, by seconds.

    Args:
        record: the record.
        scale: ticks of what is plotted, from :func:`common_scale`.
        margins: margins of the logits, plotted instead of the scores: they differ where scores round to 1.

    Returns:
        None for a record with fewer than two scores.
    """
    given: Sequence[float | None] = record.scores if margins is None else margins
    scores = np.array([np.nan if score is None else score for score in given], dtype=np.float64)
    if np.isfinite(scores).sum() < 2:
        return None
    unit = "slice" if record.kind == "volume" else "frame"
    times = np.array(record.times, dtype=np.float64)
    timed = len(times) > 1 and bool((np.diff(times) > 0).all())  # else by index: such times order nothing
    places = times if timed else np.arange(len(scores), dtype=np.float64)
    low, high = float(places[0]), float(places[-1])
    bottom, top = scale[0], scale[-1]

    def x_of(place: float) -> float:
        return round(FRAME.left + (place - low) / (high - low) * (FRAME.right - FRAME.left), 1)

    def y_of(score: float) -> float:
        return round(FRAME.bottom - (score - bottom) / (top - bottom) * (FRAME.bottom - FRAME.top), 1)

    def label(index: int) -> str:
        return f"{places[index]:.1f} s" if timed else f"{unit} {index}"

    every = -(-len(scores) // _MOST_POINTS)
    drawn = [_highest_of(scores, start, every) for start in range(0, len(scores), every)]
    runs: list[list[tuple[float, float]]] = [[]]
    for index in drawn:
        if index is None:
            runs.append([])
        else:
            runs[-1].append((x_of(places[index]), y_of(scores[index])))
    runs = [run for run in runs if run]
    lines = tuple("M" + "L".join(f"{x},{y}" for x, y in (run if len(run) > 1 else run * 2)) for run in runs)
    areas = tuple(f"{line}V{FRAME.bottom}H{run[0][0]}Z" for line, run in zip(lines, runs, strict=True))

    peaks: list[Mark] = []
    for peak in record.most_suspicious:
        if np.isfinite(scores[peak.index]):
            x = x_of(places[peak.index])
            middle = min(max(x, FRAME.left + _LABEL / 2), FRAME.right - _LABEL / 2)
            alone = all(abs(middle - higher.label_x) >= _LABEL for higher in peaks)
            peaks.append(Mark(x, y_of(scores[peak.index]), label(peak.index) if alone else "", middle))
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=not timed).tick_values(low, high)
    best = record.most_suspicious[0].index if record.most_suspicious else int(np.nanargmax(scores))
    lowest, highest = f"{np.nanmin(scores):.3f}", f"{np.nanmax(scores):.3f}"
    name = "Anomaly scores" if margins is None else "Logit margins"
    what = f"{name} of {len(scores)} {unit}s, from {lowest} to {highest}, the highest at {label(best)}."
    thinned = f" Each point is the highest of {every} neighbouring {unit}s." if every > 1 else ""
    return ScorePlot(
        lines,
        areas,
        tuple(Mark(x_of(tick), FRAME.bottom, f"{tick:g}") for tick in ticks if low <= tick <= high),
        tuple(Mark(FRAME.left, y_of(tick), f"{tick:g}") for tick in scale),
        tuple(peaks),
        f"{name[:-1]} {'over time' if timed else f'by {unit}'}",
        "seconds" if timed else unit,
        f"{what}{thinned}",
        low,
        high,
        tuple(times.tolist()) if timed else (),
    )


def _highest_of(scores: np.ndarray, start: int, count: int) -> int | None:
    """Index of the highest of some neighbours; None where none of them has a score."""
    part = scores[start : start + count]
    return start + int(np.nanargmax(part)) if np.isfinite(part).any() else None
