# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""One page on what a run found, to be read in any browser: no file beside it, no script, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.writers.overlay import jpeg
from monai_anomalyclip.writers.record import InputRecord
from monai_anomalyclip.writers.report_texts import describe, duration
from monai_anomalyclip.writers.results import write_atomically
from monai_anomalyclip.writers.run_document import RunDocument
from monai_anomalyclip.writers.score_plot import FRAME, common_scale, score_plot

__all__ = ["write_html_report"]

_PICTURES_BYTES = 16 * 2**20  # of all pictures together
_LARGEST_PICTURE, _SMALLEST_PICTURE = 160_000, 24_000  # bytes, as far as that sum allows
_LONGEST_SIDE = 1024  # pixels; holds a montage of three rows as it is


def write_html_report(document: RunDocument, montages: Mapping[str, bytes], path: str | os.PathLike[str]) -> None:
    """Write the page, with the inputs of the highest scores first.

    It can be read on a phone, in dark mode and on paper, and holds its pictures itself. They are JPEGs of at most 160
    kB and 1024 pixels; together they take at most 16 MiB, so that with more than about a hundred inputs each gets an
    equal share, and with more than about 700 those of the lowest scores go without. A film of many frames is plotted
    by the highest scores of neighbouring frames. Links to the outputs are relative: the page belongs into the output
    folder.

    Args:
        document: the run.
        montages: PNG or JPEG pictures by the names of the inputs (:func:`monai_anomalyclip.writers.overlay.montage`);
            those without stay without. Each is asked for once.
        path: the file; it appears, or is replaced, as a whole.

    Raises:
        ValueError: one of the pictures is none.
    """
    ok = [record for record in document.inputs if record.status == "ok"]
    ranked = sorted(ok, key=lambda record: (record.anomaly_score is None, -(record.anomaly_score or 0), record.name))
    scale = common_scale(ranked)
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
        inputs=[(describe(record), pictures.get(record.name), score_plot(record, scale)) for record in ranked],
        failures=[record for record in document.inputs if record.status == "failed"],
        colours=[to_hex(colormaps["inferno"](step / 8)) for step in range(9)],
        frame=FRAME,
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
                picture = image.convert("RGB")
        except OSError as error:
            raise ValueError(f"The picture of {name!r} is neither PNG nor JPEG ({type(error).__name__}).") from error
        pictures[name] = _fitting(picture, share)
    return pictures


def _fitting(picture: Image.Image, largest: int) -> tuple[str, int, int]:
    side = _LONGEST_SIDE
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        encoded = jpeg(np.asarray(picture))
        if len(encoded) <= largest or side < 64:
            data = base64.b64encode(encoded).decode()
            return f"data:image/jpeg;base64,{data}", picture.width, picture.height
        side = round(max(picture.size) * min(0.9, math.sqrt(largest / len(encoded))))
