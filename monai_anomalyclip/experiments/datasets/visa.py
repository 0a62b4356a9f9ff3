# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""VisA as published: pictures by class, and one CSV file per protocol that says which belong together."""

from __future__ import annotations

import csv
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import DataSet, DataSetInfo, Entry, Found, LayoutError, named

__all__ = ["VISA", "read_visa"]

_TABLE = "split_csv/1cls.csv"
_COLUMNS = ("object", "split", "label", "image", "mask")
_LABELS = {"normal": 0, "anomaly": 1}


def read_visa(root: Path) -> Found:
    """Read the one-class protocol ``split_csv/1cls.csv`` (columns object, split, label, image, mask).

    Raises:
        LayoutError: the table or all pictures are missing.
        ValueError: the table has other columns, labels or splits, or names files outside the folder.
    """
    table = root / _TABLE
    if not table.is_file():
        raise LayoutError(f"{_TABLE} and folders such as candle/Data/Images/Normal")
    with table.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        if missing := [column for column in _COLUMNS if column not in (rows.fieldnames or ())]:
            raise ValueError(f"{_TABLE} has no column {', '.join(missing)}.")
        found = Found()
        absent: list[Path] = []
        without: list[Path] = []
        for number, row in enumerate(rows, start=2):
            where = f"{_TABLE}, line {number}"
            if row["label"] not in _LABELS or row["split"] not in ("train", "test"):
                raise ValueError(f"{where}: label {row['label']!r} and split {row['split']!r} are not known.")
            image, label = _inside(root, row["image"], where), _LABELS[row["label"]]
            mask = _inside(root, row["mask"], where) if label and row["mask"] else None
            if not image.is_file():
                absent.append(image)
                continue
            if label and (mask is None or not mask.is_file()):
                without.append(image)
                mask = None
            entries = found.testing if row["split"] == "test" else found.training
            entries.append(Entry(image, label, row["object"], mask))
    if not found.testing and not found.training:
        raise LayoutError(f"the pictures that {_TABLE} names, such as candle/Data/Images/Normal/0000.JPG")
    if absent:
        found.notes.append(f"{len(absent)} pictures of {_TABLE} are missing ({named(absent)}).")
    if without:
        found.notes.append(f"{len(without)} anomalous images have no mask ({named(without)}).")
    return found


def _inside(root: Path, relative: str, where: str) -> Path:
    if not relative or Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise ValueError(f"{where}: {relative!r} is no path inside the data set.")
    return root / relative


VISA = DataSet(
    DataSetInfo(
        name="visa",
        title="VisA",
        domain="industrial objects",
        classes=(
            *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2"),
            *("pcb3", "pcb4", "pipe_fryum"),
        ),
        source="GitHub, amazon-science/spot-diff",
        licence="CC BY 4.0",
        licence_verified=True,
        citation="Zou et al., SPot-the-Difference, ECCV 2022",
        paper_counts=(962, 1200),
    ),
    read_visa,
)
"""VisA."""
