# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A table (CSV) that says which images there are, with their masks, labels and classes."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import Entry, Found
from monai_anomalyclip.data.datasets.tree import named
from monai_anomalyclip.data.masks import read_mask
from monai_anomalyclip.data.nifti import is_nifti

__all__ = ["read_own_table", "refuse_volumes"]

_COLUMNS = ("image", "label", "image_label", "class")


def read_own_table(table: Path) -> Found:
    """Read a CSV file with the columns ``image``, ``label`` (mask), ``image_label`` and ``class``.

    All but ``image`` may be absent or empty, but one of ``label`` and ``image_label`` (0 normal, 1 anomalous) must be
    given; where only the mask is, the image is anomalous when the mask is not empty. Paths are relative to the
    table's folder. Columns are separated by commas, or by semicolons where the first line has no comma.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a column, a line or a mask is wrong, or a file is a NIfTI volume.
    """
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{table.name} is no table: it must be a CSV file in UTF-8.") from error
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if ";" in header and "," not in header else ",")
    if "image" not in (rows.fieldnames or ()):
        raise ValueError(f"{table.name} has no column 'image' in its first line (columns: {', '.join(_COLUMNS)}).")
    found = Found()
    seen: dict[Path, int] = {}
    for row in rows:
        where = f"{table.name}, line {rows.line_num}"
        entry = _entry(table, {column: (row.get(column) or "").strip() for column in _COLUMNS}, where)
        if entry.image in seen:
            raise ValueError(f"{where}: {entry.image.name} is already in line {seen[entry.image]}.")
        seen[entry.image] = rows.line_num
        found.testing.append(entry)
    if not found.testing:
        raise ValueError(f"{table.name} names no image.")
    return found


def refuse_volumes(paths: Iterable[Path], where: str = "") -> None:
    """Prompts are tuned and measured on pictures alone, so that a datalist of volumes would be of no use.

    Args:
        paths: files of any kind.
        where: what to begin the message with.

    Raises:
        ValueError: some are NIfTI volumes by their name.
    """
    if volumes := [path for path in paths if is_nifti(path)]:
        begin = f"{where}volumes" if where else "Volumes"
        raise ValueError(
            f"{begin} ({named(volumes)}) cannot be listed, because prompts are tuned and measured on pictures: "
            "save their slices as pictures, or tune on volumes with MONAI Label (docs/monai_label.md)."
        )


def _entry(table: Path, row: dict[str, str], where: str) -> Entry:
    if not row["image"]:
        raise ValueError(f"{where}: there is no image.")
    image = table.parent / row["image"]
    mask = table.parent / row["label"] if row["label"] else None
    for path in (image, mask):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"{where}: there is no file '{path.name}'.")
    refuse_volumes(filter(None, (image, mask)), f"{where}: ")
    if row["image_label"] not in ("", "0", "1"):
        raise ValueError(f"{where}: image_label is {row['image_label']!r}, not 0 or 1.")
    if not row["image_label"] and mask is None:
        raise ValueError(f"{where}: give image_label, label (mask) or both.")
    label = int(row["image_label"]) if row["image_label"] or mask is None else int(read_mask(mask).any())
    return Entry(image, label, row["class"] or table.resolve().parent.name, mask)
