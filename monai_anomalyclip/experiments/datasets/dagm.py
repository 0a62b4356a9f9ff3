# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""DAGM 2007: ten synthetic textures, masks only for defective pictures."""

from __future__ import annotations

import re
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import (
    DataSet,
    DataSetInfo,
    Entry,
    Found,
    LayoutError,
    named,
    pictures,
    sub_folder,
)
from monai_anomalyclip.data.datasets.pairing import pair_masks

__all__ = ["DAGM", "read_dagm"]

_CLASSES = tuple(f"Class{number}" for number in range(1, 11))
_DEFECT = re.compile(r"^(\d+)_label\.png$", re.IGNORECASE)


def read_dagm(root: Path) -> Found:
    """Read ``ClassN/{Train,Test}/NNNN.PNG`` with masks ``Label/NNNN_label.PNG`` and the list ``Label/Labels.txt``.

    A picture is anomalous when it has a mask or when the list names one for it.

    Raises:
        LayoutError: none of the classes is there.
        ValueError: a mask cannot be paired (see :func:`monai_anomalyclip.data.datasets.pairing.pair_masks`).
    """
    found = Found()
    missing = [name for name in _CLASSES if sub_folder(root, f"{name}/Test") is None]
    for name in _CLASSES:
        for part, entries in (("Train", found.training), ("Test", found.testing)):
            if folder := sub_folder(root, f"{name}/{part}"):
                part_entries, notes = _read_part(folder, name, f"{name}/{part}")
                entries += part_entries
                found.notes += notes
    if len(missing) == len(_CLASSES):
        raise LayoutError("folders Class1, Class2, ..., each with Train and Test, and Label within both")
    if missing:
        found.notes.insert(0, f"{len(missing)} of {len(_CLASSES)} classes are missing: {', '.join(missing)}.")
    return found


def _read_part(folder: Path, class_name: str, where: str) -> tuple[list[Entry], list[str]]:
    images, truth = pictures(folder), sub_folder(folder, "Label")
    paired, left_over = pair_masks(images, pictures(truth), where)
    defects = _listed_defects(truth / "Labels.txt") if truth else set()
    unmasked = [image for image in images if image.stem in defects and image not in paired]
    notes = []
    if truth is None:
        notes.append(f"{where}: there is no folder Label, so that every image counts as normal.")
    if unmasked:
        notes.append(f"{where}: {len(unmasked)} anomalous images have no mask ({named(unmasked)}).")
    if left_over:
        notes.append(f"{where}: {len(left_over)} masks belong to no image ({named(left_over)}).")
    entries = [
        Entry(image, int(image in paired or image in unmasked), class_name, paired.get(image)) for image in images
    ]
    return entries, notes


def _listed_defects(table: Path) -> set[str]:
    """Stems of the pictures for which the list names a mask."""
    words = table.read_text(encoding="utf-8-sig", errors="replace").split() if table.is_file() else []
    return {match.group(1) for word in words if (match := _DEFECT.match(word))}


DAGM = DataSet(
    DataSetInfo(
        name="dagm",
        title="DAGM",
        domain="synthetic textures",
        classes=_CLASSES,
        source="Heidelberg Collaboratory for Image Processing, DAGM 2007 competition; also on Kaggle as "
        "DAGM 2007 competition dataset, optical inspection",
        licence="publicly available according to its page, no licence named",
        citation="Wieler and Hahn, Weakly Supervised Learning for Industrial Optical Inspection, DAGM 2007",
        paper_counts=(6996, 1054),
    ),
    read_dagm,
)
"""DAGM 2007."""
