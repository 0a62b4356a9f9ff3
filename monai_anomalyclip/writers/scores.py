# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""``scores.csv``: one line per frame or slice."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_anomalyclip.writers.results import write_atomically

__all__ = ["SCORE_COLUMNS", "check_score_table", "write_score_table"]

SCORE_COLUMNS = ("name", "slice", "anomaly_score", "map_max", "area_fraction", "threshold", "status", "reason")


def check_score_table(path: str | os.PathLike[str]) -> None:
    """Refuse a file that is not such a table.

    Raises:
        ValueError: the file exists and has other columns.
    """
    if not Path(path).exists():
        return
    with Path(path).open(newline="", encoding="utf-8", errors="replace") as stream:
        columns = tuple(next(csv.reader(stream), ()))
    if columns != SCORE_COLUMNS:
        raise ValueError(
            f"{Path(path).name!r} in the output folder is not a table of this program (its columns are "
            f"{', '.join(columns)}): choose another output folder."
        )


def write_score_table(path: str | os.PathLike[str], entries: Iterable[Mapping[str, Any]]) -> None:
    """Write the table; the file is replaced as a whole.

    A picture has one row; a volume or film one per slice or frame (``slice`` counts from 0) and a last one whose
    ``slice`` is ``all``. ``status`` is ``ok``, ``failed`` (with a ``reason``) or ``started``: a run was interrupted
    while it wrote this input's files.

    Args:
        path: the CSV file.
        entries: of a :class:`monai_anomalyclip.writers.journal.Journal`: ``name``, ``status``, and for finished inputs
            ``record``, ``map_max`` and ``area_fraction`` (one value per slice).
    """
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, SCORE_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerows(
            {column: f"{value:.6g}" if isinstance(value, float) else value for column, value in row.items()}
            for row in _rows(entry)
        )
    write_atomically(Path(path), stream.getvalue().encode("utf-8"))


def _rows(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    name = entry["name"]
    if entry["status"] != "ok":
        yield {"name": name, "status": entry["status"], "reason": entry.get("record", {}).get("reason", "")}
        return
    record = entry["record"]
    last = {"name": name, "threshold": record["threshold"], "status": "ok"}
    if record["kind"] != "frame":
        slices = zip(record["scores"], entry["map_max"], entry["area_fraction"], strict=True)
        for index, (score, map_max, fraction) in enumerate(slices):
            yield {**last, "slice": index, "anomaly_score": score, "map_max": map_max, "area_fraction": fraction}
        last["slice"] = "all"
    yield {
        **last,
        "anomaly_score": record["anomaly_score"],
        "map_max": record["map_max"],
        "area_fraction": record["anomalous_fraction"],
    }
