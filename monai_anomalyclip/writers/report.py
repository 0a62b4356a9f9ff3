# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the report says of a record: in words, also for the screen, and as a plot of its scores, drawn as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from monai_anomalyclip.writers.record import Compared, InputRecord, Peak

__all__ = [
    "FRAME",
    "Description",
    "Fact",
    "Frame",
    "Mark",
    "ScorePlot",
    "archive_place",
    "common_scale",
    "describe",
    "duration",
    "score_plot",
]

_COMPARED = {"anomalyclip": "AnomalyCLIP among normals", "reference": "Distance to normals"}
_PLAIN_GEOMETRIES = ("regular", "single slice")  # which need no caution


class Fact(NamedTuple):
    """A line of the list of facts; `caution` marks one that a reader should not miss."""

    name: str
    text: str
    detail: str = ""
    caution: bool = False


class Description(NamedTuple):
    """An input in words.

    Args:
        record: the record.
        what: modality, kind and number of slices or frames.
        score: the anomaly score, or a dash.
        margin: of the logits, or nothing.
        compared: p-values among normals, or nothing.
        said: what these mean, in sentences.
        peak: where the highest score is; empty for single frames.
        above: how much of it reaches the threshold.
        picture_title: what the picture shows.
        unit: "slice" or "frame".
        facts: how it was read and processed.
    """

    record: InputRecord
    what: str
    score: str
    margin: str
    compared: str
    said: tuple[str, ...]
    peak: str
    above: str
    picture_title: str
    unit: str
    facts: tuple[Fact, ...]


def describe(record: InputRecord) -> Description:
    """Put a record that is ok in words."""
    score = "-" if record.anomaly_score is None else f"{record.anomaly_score:.3f}"
    title = "Input and overlay" if record.frames == 1 else f"Most suspicious {_unit(record)}s"
    if record.score_margin is not None and any(one.method == "reference" for one in record.compared):
        title += "; right: distance to normals"  # beside AnomalyCLIP, which alone has a margin
    margin = "" if record.score_margin is None else f"{record.score_margin:.2f}"
    compared = ", ".join(
        f"{'' if one.method == 'anomalyclip' or len(record.compared) == 1 else 'reference '}p\N{NO-BREAK SPACE}"
        f"{one.p_value:.2g}"
        for one in record.compared
        if one.p_value is not None
    )
    return Description(
        record,
        _what(record),
        score,
        margin,
        compared,
        tuple(f"{_COMPARED[one.method]}: {one.says}" for one in record.compared if one.says),
        _peak(record),
        _above(record),
        title,
        _unit(record),
        tuple(_facts(record)),
    )


def duration(seconds: float) -> str:
    """A duration such as ``2 h 5 min``, ``3 min 20 s`` or ``4.5 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _unit(record: InputRecord) -> str:
    return "slice" if record.kind == "volume" else "frame"


def _what(record: InputRecord) -> str:
    origin = record.modality or {"nifti": "NIfTI"}.get(record.source, "")
    source = "video" if record.source == "video" else f"{origin} {record.kind}".strip()
    if record.frames == 1:
        return source
    plane = f"{record.plane} " if record.plane and record.plane != "native" else ""
    length = f", {duration(record.times[-1] - record.times[0])}" if record.times else ""
    return f"{source}, {record.frames} {plane}{_unit(record)}s{length}"


def _peak(record: InputRecord) -> str:
    if record.frames == 1 or not record.most_suspicious:
        return ""
    peak = record.most_suspicious[0]
    time = f" ({record.times[peak.index]:.1f}\N{NO-BREAK SPACE}s)" if record.times else ""
    place = f", {found}" if (found := archive_place(peak)) else ""
    return f"{_unit(record)}\N{NO-BREAK SPACE}{peak.index}{time}{place}"


def archive_place(peak: Peak) -> str:
    """By what a slice is found in an archive, such as ``no. 13, 42.5 mm``; empty for what is not DICOM."""
    number = "" if peak.instance_number is None else f"no.\N{NO-BREAK SPACE}{peak.instance_number}"
    position = "" if peak.position_mm is None else f"{peak.position_mm:.1f}\N{NO-BREAK SPACE}mm"
    return ", ".join(filter(None, (number, position)))


def _above(record: InputRecord) -> str:
    if record.anomalous_fraction is None:
        return ""
    if record.anomalous_fraction == 0:
        return "nothing"
    percent = f"{_rounded(100 * record.anomalous_fraction, 2)} %"
    return percent if record.anomalous_volume_ml is None else f"{percent}, {_rounded(record.anomalous_volume_ml, 3)} mL"


def _rounded(value: float, digits: int) -> str:
    """To so many significant digits, but 1230 rather than 1.23e+03."""
    return f"{float(f'{value:.{digits}g}'):g}"


def _facts(record: InputRecord) -> Iterator[Fact]:
    if record.score_margin is not None:
        detail = "the score is made from it; it ranks where scores round to 1"
        yield Fact("Logit margin", f"{record.score_margin:.3f}", detail)
    for one in record.compared:
        yield Fact(*_comparison(one))
    if record.fused is not None:
        yield Fact("Both scores fused", f"{record.fused.score:.3f}", f"rule: {record.fused.rule}")
    if any(archive_place(peak) for peak in record.most_suspicious):
        shown = [f"{peak.index} ({archive_place(peak)})" for peak in record.most_suspicious]
        yield Fact(
            f"Most suspicious {_unit(record)}s",
            "; ".join(shown),
            "index from 0 (Instance Number, position along the stack)",
        )
    if record.geometry is not None:
        yield from _geometry(record)
    if record.intensity is not None:
        low, high = record.intensity.low, record.intensity.high
        limits = "" if low is None or high is None else f", black at {low:g}, white at {high:g}"
        yield Fact("Intensity", f"{record.intensity.preset}{limits}", record.intensity.reason)
    if record.threshold is not None:
        yield Fact("Threshold", f"map ≥ {record.threshold:g}", record.threshold_source or "")
        highest = "" if record.map_max is None else f"highest value of the map {record.map_max:.3f}"
        yield Fact("At or above it", _above(record) or "not measured", highest)
    if record.split is not None:
        yield Fact("Part of a series", record.split)
    if record.files_used:
        files = "1 file" if record.files_used == 1 else f"{record.files_used} files"
        yield Fact("Read from", files, ", ".join(record.transfer_syntaxes))
    if record.timings is not None:
        read, score, write = (record.timings.read_s, record.timings.score_s, record.timings.write_s)
        detail = f"reading {read:.1f} s, scoring {score:.1f} s, writing {write:.1f} s"
        yield Fact("Time", duration(read + score + write), detail)


def _comparison(one: Compared) -> tuple[str, str, str]:
    """A comparison with normals as a fact."""
    p = "no p-value" if one.p_value is None else f"p = {one.p_value:.2g}"
    score = "" if one.score is None else f"{'margin' if one.method == 'anomalyclip' else 'distance'} {one.score:.3f}, "
    least = "" if one.smallest_p is None else f", smallest p {one.smallest_p:.2g}"
    return _COMPARED[one.method], p, f"{score}{one.k} normals{least}"


def _geometry(record: InputRecord) -> Iterator[Fact]:
    geometry = record.geometry
    assert geometry is not None
    parts = [geometry.verdict]
    if missing := geometry.missing_slices:
        parts.append(f"{missing} slice{'s' * (missing > 1)} missing")
    if geometry.tilt_degrees:
        parts.append(f"tilted by {geometry.tilt_degrees:.1f}°")
    spacing = "pixel spacing unknown"
    if geometry.spacing is not None:
        rows, columns = geometry.spacing
        spacing = f"pixels {rows:.3g} by {columns:.3g} mm"
    if geometry.spacing_source:
        spacing += f" ({geometry.spacing_source})"
    if geometry.slice_spacing is not None and record.frames > 1:
        spacing += f", slices {geometry.slice_spacing:.3g} mm apart"
    yield Fact("Geometry", ", ".join(parts), spacing, len(parts) > 1 or parts[0] not in _PLAIN_GEOMETRIES)


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
