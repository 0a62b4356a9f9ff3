# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a record says, in words: for the report and the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from monai_anomalyclip.writers.record import Compared, InputRecord, Peak

__all__ = ["Description", "Fact", "archive_place", "describe", "duration"]

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
