# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Medical data sets with a mask for every image, one folder of images and one of masks; and the mixture to tune on."""

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

__all__ = ["COLONDB_FOLDERS", "COLON_MIX", "LESION_MASK_SETS", "read_colon_mix", "read_lesion_masks"]

_Folders = tuple[tuple[str, str], ...]

COLONDB_FOLDERS: _Folders = (("images", "masks"),)
"""Folders of images and of masks in the copy of CVC-ColonDB that the paper uses."""


def read_lesion_masks(root: Path, *, class_name: str, testing: _Folders, training: _Folders = ()) -> Found:
    """Read a folder of images, all of them anomalous, and a folder of masks.

    Args:
        root: folder that holds both.
        class_name: class of the entries.
        testing: pairs of folders of images and masks to look for, in order of preference.
        training: the same for the published training part.

    Raises:
        LayoutError: no pair of folders for ``testing`` is there.
        ValueError: a mask cannot be paired (see :func:`monai_anomalyclip.data.datasets.pairing.pair_masks`).
    """
    found = Found()
    entries, notes = _read_first(root, class_name, testing)
    if not entries:
        raise LayoutError(" or ".join(f"{images} with {masks}" for images, masks in testing))
    found.testing, found.notes = entries, notes
    found.training, notes = _read_first(root, class_name, training)
    found.notes += notes
    return found


def _read_first(root: Path, class_name: str, candidates: _Folders) -> tuple[list[Entry], list[str]]:
    for image_name, mask_name in candidates:
        images, masks = sub_folder(root, image_name), sub_folder(root, mask_name)
        if images and masks and pictures(images):
            return anomalous_entries(pictures(images), pictures(masks), class_name, image_name)
    return [], []


def _data_set(info: DataSetInfo, testing: _Folders, training: _Folders = ()) -> DataSet:
    (class_name,) = info.classes
    return DataSet(info, partial(read_lesion_masks, class_name=class_name, testing=testing, training=training))


LESION_MASK_SETS = (
    _data_set(
        DataSetInfo(
            name="isic",
            title="ISIC",
            domain="dermoscopy",
            classes=("skin",),
            source="ISIC Challenge, data of 2016, task 1 (lesion segmentation), test part",
            licence="CC0",
            citation="Gutman et al., Skin Lesion Analysis toward Melanoma Detection, ISBI 2016",
            paper_counts=(0, 379),
        ),
        testing=(("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),),
        training=(("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),),
    ),
    _data_set(
        DataSetInfo(
            name="cvc-clinicdb",
            title="CVC-ClinicDB",
            domain="colonoscopy",
            classes=("colon",),
            source="Grand Challenge, polyp, CVC-ClinicDB; also in figshare, Polyp_DataSet",
            licence="research use with citation",
            citation="Bernal et al., WM-DOVA maps, Computerized Medical Imaging and Graphics 2015",
            paper_counts=(0, 612),
        ),
        testing=(
            ("Original", "Ground Truth"),
            ("PNG/Original", "PNG/Ground Truth"),
            ("TIF/Original", "TIF/Ground Truth"),
            ("images", "masks"),
        ),
    ),
    _data_set(
        DataSetInfo(
            name="cvc-colondb",
            title="CVC-ColonDB",
            domain="colonoscopy",
            classes=("colon",),
            source="figshare, Polyp_DataSet (380 images; the original of the Computer Vision Center has 300)",
            licence="none found",
            citation="Tajbakhsh et al., Automated Polyp Detection in Colonoscopy Videos, IEEE TMI 2016; "
            "Bernal et al., Towards automatic polyp detection, Pattern Recognition 2012",
            paper_counts=(0, 380),
        ),
        testing=COLONDB_FOLDERS,
    ),
    _data_set(
        DataSetInfo(
            name="kvasir",
            title="Kvasir",
            domain="colonoscopy (Kvasir-SEG)",
            classes=("colon",),
            source="Simula datasets, Kvasir-SEG; also in figshare, Polyp_DataSet",
            licence="research and education",
            citation="Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020",
            paper_counts=(0, 1000),
        ),
        testing=(("images", "masks"),),
    ),
    _data_set(
        DataSetInfo(
            name="endo",
            title="Endo",
            domain="colonoscopy (EndoTect 2020, segmentation test part)",
            classes=("colon",),
            source="EndoTect Challenge at ICPR 2020, EndoTect_2020_Segmentation_Test_Dataset",
            licence="none found",
            citation="Hicks et al., The EndoTect 2020 Challenge, ICPR 2021",
            paper_counts=(0, 200),
        ),
        testing=(("images", "masks"),),
    ),
    _data_set(
        DataSetInfo(
            name="tn3k",
            title="TN3K",
            domain="thyroid ultrasound",
            classes=("thyroid",),
            source="GitHub, haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
            licence="MIT for the authors' code; none stated for the images",
            citation="Gong et al., Multi-Task Learning for Thyroid Nodule Segmentation, ISBI 2021",
            paper_counts=(0, 614),
        ),
        testing=(("test-image", "test-mask"),),
        training=(("trainval-image", "trainval-mask"),),
    ),
)
"""ISIC, CVC-ClinicDB, CVC-ColonDB, Kvasir, Endo and TN3K."""


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
