# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""KolektorSDD (SDD in the paper): tall pictures of commutator surfaces, each cut in an upper and a lower half."""

from __future__ import annotations

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

__all__ = ["SDD", "read_kolektor"]

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
