# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Auxiliary data for medical tuning: polyps of CVC-ColonDB with masks, normal colon of Endo classification without."""

from __future__ import annotations

from pathlib import Path

from monai_anomalyclip.data.datasets.listing import DataSet, DataSetInfo, Entry, Found, LayoutError
from monai_anomalyclip.data.datasets.tree import folders, pictures, sub_folder
from monai_anomalyclip.experiments.datasets.lesion_masks import COLONDB_FOLDERS, read_lesion_masks

__all__ = ["COLON_MIX", "read_colon_mix"]

_POLYPS = ("CVC-ColonDB", "ColonDB")
_NORMAL = ("Endo classification", "Endo_classification")
_NORMAL_CLASSES = ("normal", "good")


def read_colon_mix(root: Path) -> Found:
    """Read ``CVC-ColonDB/{images,masks}`` and the normal pictures of ``Endo classification``.

    The normal pictures lie in the folder itself or in its folder ``normal`` (or ``good``); other classes are ignored.

    Raises:
        LayoutError: one of the two is missing.
        ValueError: a mask cannot be paired (see :func:`monai_anomalyclip.data.datasets.pairing.pair_masks`).
    """
    polyps, endo = sub_folder(root, *_POLYPS), sub_folder(root, *_NORMAL)
    inner = sub_folder(endo, *_NORMAL_CLASSES) if endo else None
    normal = pictures(inner or endo)
    if polyps is None or endo is None or not normal:
        raise LayoutError(f"{_POLYPS[0]}/images, {_POLYPS[0]}/masks and {_NORMAL[0]}/normal")
    found = read_lesion_masks(polyps, class_name="colon", testing=COLONDB_FOLDERS)
    found.testing += [Entry(image, 0, "colon") for image in normal]
    if ignored := [folder.name for folder in folders(endo) if folder != inner]:
        found.notes.append(f"{endo.name}: only normal images are used, not {', '.join(ignored)}.")
    return found


COLON_MIX = DataSet(
    DataSetInfo(
        name="colondb-endo",
        title="ColonDB + Endo classification",
        domain="colonoscopy, auxiliary data for medical tuning",
        classes=("colon",),
        source="figshare, Polyp_DataSet (CVC-ColonDB); EndoTect Challenge at ICPR 2020 (classification test part)",
        licence="none found",
        citation="Zhou et al., AnomalyCLIP, ICLR 2024, appendix; and those of both parts",
        paper_counts=(163, 380),
        default_split="training",
    ),
    read_colon_mix,
)
"""The mix that the paper tunes its medical prompts on."""
