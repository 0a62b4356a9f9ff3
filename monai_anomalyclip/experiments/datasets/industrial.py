# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Industrial data sets with layouts of their own: VisA, KolektorSDD (SDD in the paper) and DAGM 2007."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import (
    DataSet,
    DataSetInfo,
    Entry,
    Found,
    LayoutError,
    folders,
    named,
    pictures,
    sub_folder,
)
from monai_anomalyclip.data.datasets.pairing import pair_masks
from monai_anomalyclip.data.masks import read_mask
from monai_anomalyclip.experiments.datasets.product_classes import read_product_classes

__all__ = ["DAGM", "SDD", "VISA", "read_dagm", "read_kolektor", "read_visa"]

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


_CLASS = "electrical commutators"


def read_kolektor(root: Path) -> Found:
    """Read ``kosNN/PartN.jpg`` with masks ``PartN_label.bmp``, every picture as two halves.

    A half is anomalous when its half of the mask is. A folder ``electrical commutators`` laid out as MVTec AD (the
    copy that the authors of AnomalyCLIP link to) is read as it is, uncut.

    Raises:
        LayoutError: there are no such folders.
        ValueError: a mask cannot be paired or read.
    """
    if sub_folder(root, _CLASS):
        return read_product_classes(root, classes=(_CLASS,))
    parts = [folder for folder in folders(root) if folder.name.lower().startswith("kos")]
    if not parts:
        raise LayoutError(f"folders kos01, kos02, ... with Part0.jpg and Part0_label.bmp, or a folder '{_CLASS}'")
    found = Found()
    for folder in parts:
        files = pictures(folder)
        masks = [path for path in files if path.stem.lower().endswith("_label")]
        images = [path for path in files if path not in masks]
        paired, left_over = pair_masks(images, masks, folder.name)
        for image in images:
            if image in paired:
                found.testing += _halves(image, paired[image])
        if without := [image for image in images if image not in paired]:
            found.notes.append(f"{folder.name}: {len(without)} images without a mask are left out ({named(without)}).")
        if left_over:
            found.notes.append(f"{folder.name}: {len(left_over)} masks belong to no image ({named(left_over)}).")
    return found


def _halves(image: Path, label: Path) -> list[Entry]:
    mask = read_mask(label)
    height = mask.shape[0]
    halves = ((0, height // 2), (height // 2, height))
    anomalous = [bool(mask[first:end].any()) for first, end in halves]
    return [
        Entry(image, int(has_defect), _CLASS, label if has_defect else None, rows)
        for has_defect, rows in zip(anomalous, halves, strict=True)
    ]


SDD = DataSet(
    DataSetInfo(
        name="sdd",
        title="SDD",
        domain="commutator surfaces (KolektorSDD)",
        classes=(_CLASS,),
        source="ViCoS lab, University of Ljubljana, page of the Kolektor Surface-Defect Dataset, fine annotations",
        licence="CC BY-NC-SA 4.0",
        citation="Tabernik et al., Segmentation-based deep-learning approach for surface-defect detection, "
        "Journal of Intelligent Manufacturing 2020",
        paper_counts=(181, 74),
    ),
    read_kolektor,
)
"""KolektorSDD."""


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
