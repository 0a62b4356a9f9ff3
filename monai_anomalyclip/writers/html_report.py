# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a run found, to be read in any browser, from a folder: nothing is fetched, and it can be printed."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import make_private_folder, write_atomically
from monai_anomalyclip.writers.finished import InputState
from monai_anomalyclip.writers.record import InputRecord
from monai_anomalyclip.writers.report import FRAME, Description, ScorePlot, common_scale, describe, duration, score_plot
from monai_anomalyclip.writers.tables import RunDocument

__all__ = [
    "VIEWER",
    "Inline",
    "KeptFiles",
    "ReportSource",
    "own_page",
    "read_part",
    "script",
    "style",
    "template",
    "viewer_page",
    "write_html_report",
]

VIEWER = "_viewer.html"

_PER_PAGE = 100  # inputs
_LARGEST_PICTURE = 160_000  # bytes
_LONGEST_SIDE = 1024  # pixels; holds a montage of three rows as it is
_PREVIEWS_BYTES = 30 * 2**20  # embedded in the report
_WIDE = 1.5  # width to height, from which a picture gets a row of its own


class KeptFiles(NamedTuple):
    """Where the picture (PNG or JPEG), the thumbnail (JPEG) and the preview (JSON) of an input lie, if they do."""

    picture: Path
    thumbnail: Path
    preview: Path


class _Picture(NamedTuple):
    address: str
    width: int
    height: int


class _Shown(NamedTuple):
    """An input on a page."""

    number: int
    text: Description
    picture: _Picture | None
    wide: bool
    plot: ScorePlot | None
    preview: str
    viewer: str


class ReportSource(NamedTuple):
    """Where the report takes what it shows from, a page at a time.

    Args:
        ranked: names of the inputs that were scored, the most suspicious first.
        failed: names of those that failed.
        states: reads the records of some inputs, in the order of their names.
        kept: where the pictures of an input lie.
    """

    ranked: Sequence[str]
    failed: Sequence[str]
    states: Callable[[Sequence[str]], Sequence[InputState]]
    kept: Callable[[str], KeptFiles]


def write_html_report(document: RunDocument, source: ReportSource, path: str | os.PathLike[str]) -> None:
    """Write the report, the most suspicious inputs first.

    The page lists all inputs in a table that can be sorted and searched, and shows the first 100 with their pictures
    (JPEGs of at most 160 kB and 1024 pixels), which it holds itself. The others are on pages of 100 in the folder
    ``report`` beside it; the table loads their thumbnails when they are looked at. The most suspicious inputs can be
    moved through slice by slice in the page, up to 30 MiB of previews; the others in ``<name>_viewer.html`` beside it.
    One page's records and pictures are in memory at a time. Links are relative: the pages belong into the output
    folder. The plots of a page share one scale, of the logits' margins where all its inputs have them, else of scores;
    a film of many frames is plotted by the highest of neighbouring frames.

    Args:
        document: the run; its inputs are not looked at.
        source: of what is shown.
        path: the file; it appears, or is replaced, as a whole.

    Raises:
        ValueError: one of the pictures is none.
    """
    path = Path(path)
    pages = max(1, -(-len(source.ranked) // _PER_PAGE))
    shown = {
        "notice": RESEARCH_USE_ONLY,
        "style": style("report", "viewer"),
        "script": script("viewer", "report"),
        "run": document,
        "started": str(document.started).replace("T", " ")[:16],
        "duration": duration(document.duration_s),
        "failures": [record for state in source.states(source.failed) if (record := state.shown()) is not None],
        "colours": [to_hex(colormaps["inferno"](step / 8)) for step in range(9)],
        "frame": FRAME,
        "pages": pages,
        "total": len(source.ranked),
    }
    folder = path.parent / "report"
    rows: list[list[Any]] = []
    for page in reversed(range(1, pages + 1)):  # the first page last: what it links to is there, and it lists all
        first = (page - 1) * _PER_PAGE
        states = source.states(source.ranked[first : first + _PER_PAGE])
        records = [record for state in states if (record := state.shown()) is not None]
        embedded = _embedded(records, source.kept) if page == 1 else set()
        for record in records:
            preview, held = source.kept(record.name).preview, record.name in embedded
            _write_viewer(record.name, preview, path.parent, held, document.model.caution)
        margins: dict[str, Sequence[float]] | None = {state.name: state.slices.margin for state in states}
        if any(len(state.slices.margin) != state.record.frames for state in states if state.record):
            margins = None
        scale = common_scale(records, margins)
        inputs = []
        for number, record in enumerate(records, start=first + 1):
            files = source.kept(record.name)
            picture = _picture(record.name, files.picture)
            inputs.append(
                _Shown(
                    number,
                    describe(record),
                    picture,
                    picture is not None and picture.width > _WIDE * picture.height,
                    score_plot(record, scale, None if margins is None else margins[record.name]),
                    files.preview.read_text(encoding="utf-8") if record.name in embedded else "",
                    f"{record.name}{VIEWER}" if (path.parent / f"{record.name}{VIEWER}").is_file() else "",
                )
            )
        rows[:0] = [_row(shown_input, page, source.kept, path.parent, pages > 1) for shown_input in inputs]
        text = template("report.html.jinja").render(
            **shown,
            page=page,
            inputs=inputs,
            margins=margins is not None,
            root="" if page == 1 else "../",
            rows=_json(rows) if page == 1 else "",
        )
        if page > 1:
            make_private_folder(folder)
        target = path if page == 1 else folder / f"page_{page}.html"
        write_atomically(target, text.encode("utf-8", errors="replace"), durable=page == 1)
    _remove_older(folder, pages)


def viewer_page(name: str, preview: str, home: str, caution: str = "") -> str:
    """A page with the viewer of one input alone.

    Args:
        name: of the input.
        preview: what it shows (:mod:`monai_anomalyclip.writers.viewer_data`).
        home: relative address of the report.
        caution: what must be said of the model.
    """
    return template("viewer.html.jinja").render(
        notice=RESEARCH_USE_ONLY,
        style=style("report", "viewer"),
        script=script("viewer", "viewer_page"),
        name=name,
        preview=preview,
        home=home,
        caution=caution,
    )


def _embedded(records: Sequence[InputRecord], kept: Callable[[str], KeptFiles]) -> set[str]:
    """Inputs of the first page whose preview it has room for."""
    room, names = _PREVIEWS_BYTES, set()
    for record in records:
        with contextlib.suppress(FileNotFoundError):
            room -= kept(record.name).preview.stat().st_size
            if room >= 0:
                names.add(record.name)
    return names


def _write_viewer(name: str, preview: Path, folder: Path, embedded: bool, caution: str) -> None:
    """Give an input a page with its viewer, if it has none of its preview; none to one that the report holds."""
    page = folder / f"{name}{VIEWER}"
    with contextlib.suppress(FileNotFoundError):
        made = preview.stat().st_mtime
        if embedded:
            if own_page(page):
                page.unlink(missing_ok=True)
        elif not page.exists() or (page.stat().st_mtime < made and own_page(page)):
            home = "../" * name.count("/") + "report.html"
            text = viewer_page(name, preview.read_text(encoding="utf-8"), home, caution)
            write_atomically(page, text.encode("utf-8", errors="replace"), durable=False)


def own_page(page: Path) -> bool:
    """Whether a file is a page with a viewer, not one that somebody else called so."""
    with contextlib.suppress(OSError), page.open("rb") as stream:
        return b'name="monai-anomalyclip" content="viewer"' in stream.read(4096)
    return False


def _row(shown: _Shown, page: int, kept: Callable[[str], KeptFiles], folder: Path, many: bool) -> list[Any]:
    """A row of the table for the page's script: a short list, for there can be ten thousand."""
    text, record, number = shown.text, shown.text.record, shown.number
    address = f"#input-{number}" if page == 1 else f"report/page_{page}.html#input-{number}"
    return [
        number, record.name, text.what, record.anomaly_score, text.score, text.margin, text.compared, text.peak,
        text.above, record.anomalous_fraction, len(record.warnings), record.study or "", address,
        _thumbnail(kept(record.name).thumbnail, folder, many),
    ]  # fmt: skip


def _json(rows: list[list[Any]]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _thumbnail(path: Path, folder: Path, many: bool) -> str:
    """Address of a thumbnail: the picture itself in a report of one page."""
    if not many:
        with contextlib.suppress(OSError):
            return _data_uri(path.read_bytes())
        return ""
    return quote(path.relative_to(folder).as_posix()) if path.is_relative_to(folder) else ""


def _picture(name: str, path: Path) -> _Picture | None:
    """The picture as an address that holds it; None where there is none."""
    try:
        encoded = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            if max(image.size) <= _LONGEST_SIDE and len(encoded) <= _LARGEST_PICTURE and image.format == "JPEG":
                return _Picture(_data_uri(encoded), image.width, image.height)
            picture = image.convert("RGB")
    except OSError as error:
        raise ValueError(f"The picture of {name!r} is neither PNG nor JPEG ({type(error).__name__}).") from error
    return _fitting(picture)


def _fitting(picture: Image.Image) -> _Picture:
    side = _LONGEST_SIDE
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()  # by Pillow alone: torch, which draws such pictures, takes hundreds of MiB
        picture.save(stream, format="JPEG", quality=82, subsampling=0)
        encoded = stream.getvalue()
        if len(encoded) <= _LARGEST_PICTURE or side < 64:
            return _Picture(_data_uri(encoded), picture.width, picture.height)
        side = round(max(picture.size) * min(0.9, math.sqrt(_LARGEST_PICTURE / len(encoded))))


def _data_uri(encoded: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"


def _remove_older(folder: Path, pages: int) -> None:
    """Pages of a report that was longer."""
    for path in list(folder.glob("page_*.html")):
        number = path.stem.removeprefix("page_")
        if number.isdecimal() and int(number) > pages:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        folder.rmdir()


class Inline(NamedTuple):
    """A text for a `style` or `script` element, and its digest for the page's content policy."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Inline:
        """With the SHA-256 that browsers compare."""
        return cls(text, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


@functools.cache
def style(*names: str) -> Inline:
    """The style sheets of these names, one after the other."""
    return Inline.of("".join(read_part(f"{name}.css") for name in names))


@functools.cache
def script(*names: str) -> Inline:
    """The scripts of these names, after the 256 colours of the map (matplotlib's inferno) as ``VIEWER_COLOURS``."""
    shades = (colormaps["inferno"](range(256))[:, :3] * 255).round().astype(int).ravel().tolist()
    colours = f"const VIEWER_COLOURS = [{','.join(map(str, shades))}];\n"
    return Inline.of(colours + "".join(read_part(f"{name}.js") for name in names))


@functools.cache
def template(name: str, package: str = "monai_anomalyclip.writers") -> jinja2.Template:
    """A template in the folder of a package; what it shows is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def read_part(name: str) -> str:
    """The text of a file of this package."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
