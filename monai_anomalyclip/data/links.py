# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The table that says which input is which: names of results beside paths and UIDs. Private, only when asked for."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.data.dicom.series import text_of
from monai_anomalyclip.data.input_files import holds_results
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import DicomSource, FrameSource, Source

__all__ = ["LINK_COLUMNS", "check_links", "write_links"]

LINK_COLUMNS = (
    "name", "path", "page", "files", "folder", "study_instance_uid", "series_instance_uid", "series_number",
    "series_description",
)  # fmt: skip


def check_links(path: str | os.PathLike[str], results: str | os.PathLike[str] | None = None) -> None:
    """Refuse a place that such a table must not have.

    Args:
        path: where the table is to be written.
        results: the folder of the results.

    Raises:
        ValueError: it lies in a folder of results, which is passed on without it, or another file lies there.
    """
    place = Path(path).resolve()
    inside = results is not None and place.is_relative_to(Path(results).resolve())
    if inside or any(holds_results(parent) for parent in place.parents):
        raise ValueError(
            f"The links {str(path)!r} would lie in a folder of results, which they are to be kept apart from: choose "
            "another place."
        )
    if place.is_dir():
        raise ValueError(f"The links {str(path)!r} are a folder: give a file.")
    if place.exists():
        with place.open(newline="", encoding="utf-8", errors="replace") as stream:
            if tuple(next(csv.reader(stream), ())) != LINK_COLUMNS:
                raise ValueError(f"{str(path)!r} is not a table of links of this program: choose another place.")


def write_links(path: str | os.PathLike[str], catalogue: InputCatalogue) -> None:
    """Write the table, a CSV file that only its owner may read, one row per input; an older one is replaced.

    It holds paths, UIDs and series descriptions: it is as identifiable as the images. With it rows of ``inputs.csv``,
    by their ``name``, find their patient again.

    Args:
        path: the file.
        catalogue: the inputs.

    Raises:
        ValueError: as for :func:`check_links`.
        OSError: it cannot be written.

    Example:
        >>> write_links("private/links.csv", InputCatalogue("studies"))
    """
    check_links(path)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, LINK_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"name": name, **_link(source)} for name, source in catalogue.sources.items())
    write_atomically(Path(path), stream.getvalue().encode("utf-8", "surrogateescape"))


def _link(source: Source) -> dict[str, str]:
    paths = [file.resolve() for file in source.paths]
    row = {"path": str(paths[0]), "files": str(len(paths)), "folder": os.path.commonpath([p.parent for p in paths])}
    if isinstance(source, FrameSource) and source.page:
        row["page"] = str(source.page + 1)
    if isinstance(source, DicomSource):
        header = source.series.header
        for column, keyword in (
            ("study_instance_uid", "StudyInstanceUID"), ("series_instance_uid", "SeriesInstanceUID"),
            ("series_number", "SeriesNumber"), ("series_description", "SeriesDescription"),
        ):  # fmt: skip
            row[column] = text_of(header, keyword)
    return {column: _no_formula(text) for column, text in row.items()}


def _no_formula(text: str) -> str:
    """A text of a file that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
