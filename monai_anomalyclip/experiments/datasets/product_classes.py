# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets laid out as MVTec AD: one folder per class with ``train``, ``test`` and ``ground_truth``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import (
    DataSet,
    DataSetInfo,
    Entry,
    Found,
    LayoutError,
    folders,
    pictures,
    sub_folder,
)
from monai_anomalyclip.data.datasets.pairing import anomalous_entries

__all__ = ["PRODUCT_CLASS_SETS", "read_product_classes"]


def read_product_classes(root: Path, *, classes: tuple[str, ...], normal: str = "good") -> Found:
    """Read ``CLASS/{train,test}/KIND/*`` with masks ``CLASS/ground_truth/KIND/*``.

    Args:
        root: folder of the classes.
        classes: their names; absent ones are noted, other folders ignored.
        normal: kind that is not anomalous.

    Raises:
        LayoutError: none of the classes is there.
        ValueError: a mask cannot be paired (see :func:`monai_anomalyclip.data.datasets.pairing.pair_masks`).
    """
    found = Found()
    missing = []
    for name in classes:
        folder = sub_folder(root, name)
        if folder is None or sub_folder(folder, "test") is None:
            missing.append(name)
            continue
        for part, entries in (("train", found.training), ("test", found.testing)):
            part_entries, notes = _read_part(folder, part, name, normal)
            entries += part_entries
            found.notes += notes
    if len(missing) == len(classes):
        raise LayoutError(
            f"folders {', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''}, each with train/{normal}, "
            f"test/{normal}, test/KIND and ground_truth/KIND"
        )
    if missing:
        found.notes.insert(0, f"{len(missing)} of {len(classes)} classes are missing: {', '.join(missing)}.")
    return found


def _read_part(folder: Path, part: str, class_name: str, normal: str) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    notes: list[str] = []
    kinds = sub_folder(folder, part)
    for kind in folders(kinds) if kinds else []:
        images = pictures(kind)
        if kind.name.casefold() == normal:
            entries += [Entry(image, 0, class_name) for image in images]
            continue
        masks = pictures(sub_folder(folder, f"ground_truth/{kind.name}"))
        kind_entries, kind_notes = anomalous_entries(images, masks, class_name, f"{class_name}/{part}/{kind.name}")
        entries += kind_entries
        notes += kind_notes
    return entries, notes


def _data_set(info: DataSetInfo, normal: str = "good") -> DataSet:
    return DataSet(info, partial(read_product_classes, classes=info.classes, normal=normal))


PRODUCT_CLASS_SETS = (
    _data_set(
        DataSetInfo(
            name="mvtec",
            title="MVTec AD",
            domain="industrial objects and textures",
            classes=(
                *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw"),
                *("tile", "toothbrush", "transistor", "wood", "zipper"),
            ),
            source="MVTec, page of the MVTec Anomaly Detection Dataset",
            licence="CC BY-NC-SA 4.0",
            citation="Bergmann et al., MVTec AD, CVPR 2019",
            paper_counts=(467, 1258),
        )
    ),
    _data_set(
        DataSetInfo(
            name="mpdd",
            title="MPDD",
            domain="painted metal parts",
            classes=("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"),
            source="GitHub, stepanje/MPDD",
            licence="CC BY-NC-SA 4.0 according to anomalib; the authors' README states none",
            citation="Jezek et al., Deep learning-based defect detection of metal parts, ICUMT 2021",
            paper_counts=(176, 282),
        )
    ),
    _data_set(
        DataSetInfo(
            name="btad",
            title="BTAD",
            domain="industrial products and surfaces",
            classes=("01", "02", "03"),
            source="University of Udine, AViReS lab; described in GitHub, pankajmishra000/VT-ADL",
            licence="CC BY-NC-SA 4.0 or CC BY-SA 4.0: sources differ",
            citation="Mishra et al., VT-ADL, ISIE 2021",
            paper_counts=(451, 290),
        ),
        normal="ok",
    ),
    _data_set(
        DataSetInfo(
            name="dtd-synthetic",
            title="DTD-Synthetic",
            domain="textures with painted defects",
            classes=(
                *("Woven_001", "Woven_127", "Woven_104", "Stratified_154", "Blotchy_099", "Woven_068", "Woven_125"),
                *("Marbled_078", "Perforated_037", "Mesh_114", "Fibrous_183", "Matted_069"),
            ),
            source="shared folder linked from the README of GitHub, zqhang/AnomalyCLIP",
            licence="none found",
            citation="Aota et al., Zero-shot versus Many-shot: Unsupervised Texture Anomaly Detection, WACV 2023",
            paper_counts=(357, 947),
        )
    ),
)
"""MVTec AD, MPDD, BTAD and DTD-Synthetic."""
