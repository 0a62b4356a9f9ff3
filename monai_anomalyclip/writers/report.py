# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""One page on what a run found, to be read in any browser: no file beside it, no script, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.writers.record import InputRecord, Peak
from monai_anomalyclip.writers.score_plot import FRAME, common_scale, score_plot
from monai_anomalyclip.writers.tables import RunDocument, ranked_records

__all__ = ["Description", "Fact", "Pages", "describe", "duration", "page_name", "write_html_report"]

_PLAIN_GEOMETRIES = ("regular", "single slice")  # which need no caution


class Fact(NamedTuple):
    """A line of the list of facts; `caution` marks one that a reader should not miss."""

    name: str
    text: str
    detail: str = ""
    caution: bool = False


class Pages(NamedTuple):
    """Which page of a report of several this is.

    Args:
        number: from 0.
        total: number of pages.
        first: how many inputs stand on the pages before.
        inputs: how many were scored in all.
    """

    number: int = 0
    total: int = 1
    first: int = 0
    inputs: int = 0


def page_name(number: int) -> str:
    """File name of a page, from 0."""
    return "report.html" if number == 0 else f"report_{number + 1}.html"


class Description(NamedTuple):
    """An input in words.

    Args:
        record: the record.
        what: modality, kind and number of slices or frames.
        score: the anomaly score, or a dash.
        margin: of the logits, or nothing.
        peak: where the highest score is; empty for single frames.
        above: how much of it reaches the threshold.
        picture_title: what the picture shows.
        facts: how it was read and processed.
    """

    record: InputRecord
    what: str
    score: str
    margin: str
    peak: str
    above: str
    picture_title: str
    facts: tuple[Fact, ...]


def describe(record: InputRecord) -> Description:
    """Put a record that is ok in words."""
    score = "-" if record.anomaly_score is None else f"{record.anomaly_score:.3f}"
    title = "Input and overlay" if record.frames == 1 else f"Most suspicious {_unit(record)}s"
    margin = "" if record.score_margin is None else f"{record.score_margin:.2f}"
    return Description(
        record, _what(record), score, margin, _peak(record), _above(record), title, tuple(_facts(record))
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


_PICTURES_BYTES = 16 * 2**20  # of all pictures together
_LARGEST_PICTURE, _SMALLEST_PICTURE = 160_000, 24_000  # bytes, as far as that sum allows
_LONGEST_SIDE = 1024  # pixels; holds a montage of three rows as it is


def write_html_report(
    document: RunDocument,
    montages: Mapping[str, bytes],
    path: str | os.PathLike[str],
    margins: Mapping[str, Sequence[float]] | None = None,
    pages: Pages | None = None,
) -> None:
    """Write the page, with the most suspicious inputs first (:func:`monai_anomalyclip.ranking.most_suspicious_first`).

    It can be read on a phone, in dark mode and on paper, and holds its pictures itself. They are JPEGs of at most 160
    kB and 1024 pixels; together they take at most 16 MiB, so that with more than about a hundred inputs each gets an
    equal share, and with more than about 700 those of the lowest scores go without. A film of many frames is plotted
    by the highest scores of neighbouring frames. Links to the outputs are relative: the page belongs into the output
    folder.

    Args:
        document: the run.
        montages: PNG or JPEG pictures by the names of the inputs (:func:`monai_anomalyclip.writers.overlays.montage`);
            those without stay without. Each is asked for once.
        path: the file; it appears, or is replaced, as a whole.
        margins: of the logits per slice or frame, by the names of the inputs. When all have them, they are plotted
            instead of the scores, which are flat where they round to 1.
        pages: which page of several this is; the document holds its inputs, and the numbers of all.

    Raises:
        ValueError: one of the pictures is none.
    """
    ranked = ranked_records(document.inputs)
    if margins is None or any(len(margins.get(record.name, ())) != record.frames for record in ranked):
        margins = None
    scale = common_scale(ranked, margins)
    pictures = _pictures(ranked, montages)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("monai_anomalyclip", "writers"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    page = environment.get_template("report.html.jinja").render(
        notice=RESEARCH_USE_ONLY,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        run=document,
        started=str(document.started).replace("T", " ")[:16],
        duration=duration(document.duration_s),
        inputs=[
            (
                describe(record),
                pictures.get(record.name),
                score_plot(record, scale, None if margins is None else margins[record.name]),
            )
            for record in ranked
        ],
        margins=margins is not None,
        failures=[record for record in document.inputs if record.status == "failed"],
        colours=[to_hex(colormaps["inferno"](step / 8)) for step in range(9)],
        frame=FRAME,
        pages=pages or Pages(inputs=len(ranked)),
        page_name=page_name,
        left_out=set(montages) - set(pictures),
    )
    write_atomically(Path(path), page.encode("utf-8", errors="replace"))


def _pictures(ranked: Sequence[InputRecord], montages: Mapping[str, bytes]) -> dict[str, tuple[str, int, int]]:
    """Data URI, width and height of each picture that there is room for."""
    names = [record.name for record in ranked if record.name in montages]
    share = min(max(_PICTURES_BYTES // max(1, len(names)), _SMALLEST_PICTURE), _LARGEST_PICTURE)
    pictures = {}
    for name in names[: _PICTURES_BYTES // share]:
        try:
            with Image.open(io.BytesIO(montages[name]), formats=("PNG", "JPEG")) as image:
                small = max(image.size) <= _LONGEST_SIDE and len(montages[name]) <= share and image.format == "JPEG"
                if small:
                    pictures[name] = (_data_uri(montages[name]), image.width, image.height)
                    continue
                picture = image.convert("RGB")
        except OSError as error:
            raise ValueError(f"The picture of {name!r} is neither PNG nor JPEG ({type(error).__name__}).") from error
        pictures[name] = _fitting(picture, share)
    return pictures


def _data_uri(encoded: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"


def _fitting(picture: Image.Image, largest: int) -> tuple[str, int, int]:
    side = _LONGEST_SIDE
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        from monai_anomalyclip.writers.overlays import jpeg  # needs torch, which JPEG files alone do not

        encoded = jpeg(np.asarray(picture))
        if len(encoded) <= largest or side < 64:
            return _data_uri(encoded), picture.width, picture.height
        side = round(max(picture.size) * min(0.9, math.sqrt(largest / len(encoded))))
