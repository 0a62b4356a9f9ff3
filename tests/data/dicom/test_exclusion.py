# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from pydicom import Dataset
from pydicom.uid import UID, UID_dictionary

from monai_anomalyclip.data.dicom.exclusion import (
    EXCLUSION_REASONS,
    exclusion_reason,
    included_reasons,
    is_image_class,
    object_kind,
)

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, SECONDARY_CAPTURE = STORAGE + "2", STORAGE + "4", STORAGE + "7"


def image(image_type: list[str] | None = None, sop_class: str = CT, **attributes: object) -> Dataset:
    header = Dataset()
    header.SOPClassUID = sop_class
    header.PhotometricInterpretation = "MONOCHROME2"
    if image_type is not None:
        header.ImageType = image_type
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("66.4", "segmentation"),
        ("66.7", "segmentation"),
        ("30", "parametric map"),
        ("11.1", "presentation state"),
        ("11.8", "presentation state"),
        ("88.33", "structured report"),
        ("88.67", "structured report"),
        ("88.59", "key object selection"),
        ("104.1", "encapsulated PDF"),
        ("104.3", "encapsulated document"),
        ("9.1.1", "waveform"),
        ("66", "raw data"),
        ("481.2", "RT dose"),
        ("481.3", "RT structure set"),
        ("481.5", "RT plan"),
        ("481.9", "radiotherapy object"),
        ("481.1", None),
        ("77.1.6", "whole-slide image"),
        ("77.1.5.4", None),
        ("2", None),
        ("2.1", None),
        ("4.2", "MR spectroscopy"),
        ("4.1", None),
        ("6.1", None),
        ("7", None),
        ("13.1.3", None),
        ("128", None),
    ],
)
def test_objects_that_are_no_images(number: str, kind: str | None) -> None:
    assert object_kind(image(sop_class=STORAGE + number)) == kind
    assert exclusion_reason(image(sop_class=STORAGE + number, ImagePositionPatient=[0, 0, 0])) == kind


def test_every_storage_class_that_is_called_an_image_is_one_and_few_others() -> None:
    names = {uid: entry[0] for uid, entry in UID_dictionary.items() if uid.startswith(STORAGE)}
    images = {uid for uid, name in names.items() if "Image Storage" in name or "Breast" in name}
    refused = {names[uid] for uid in images if object_kind(image(sop_class=uid))}
    assert refused == {
        "VL Whole Slide Microscopy Image Storage",
        "Confocal Microscopy Tiled Pyramidal Image Storage",
    }
    for word in ("SR Storage", "Segmentation", "Waveform", "Presentation State", "RT Plan", "Encapsulated"):
        matching = [uid for uid, name in names.items() if word in name]
        assert matching
        assert all(object_kind(image(sop_class=uid)) for uid in matching), word


def test_missing_and_private_sop_classes_are_not_judged() -> None:
    assert object_kind(Dataset()) is None
    assert object_kind(image(sop_class="1.2.3.4.5")) is None
    assert exclusion_reason(Dataset()) is None


@pytest.mark.parametrize(
    ("image_type", "reason"),
    [
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], "localizer"),
        (["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"], "localizer"),
        (["DERIVED", "SECONDARY", "OTHER", "SCOUT"], "localizer"),
        (["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "mosaic"),
        (["DERIVED", "PRIMARY", "PROJECTION IMAGE", "M", "ND"], "projection"),
        (["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"], "projection"),
        (["ORIGINAL", "PRIMARY", "M", "SWI", "MNIP"], "projection"),
        (["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"], "projection"),
        (["DERIVED", "SECONDARY", "MPR"], "reformatted"),
        (["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MPR"], "reformatted"),
        (["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"], "reformatted"),
        (["derived", "secondary", "mpr"], "reformatted"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND", "NORM"], "calculated map"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "FA"], "calculated map"),
        (["DERIVED", "PRIMARY", "PERFUSION", "RCBF"], "calculated map"),
        (["DERIVED", "PRIMARY", "T1 MAP", "ND"], "calculated map"),
        (["DERIVED", "SECONDARY", "SCREEN SAVE"], "secondary capture"),
        (["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"], "secondary capture"),
        (["ORIGINAL", "PRIMARY", "AXIAL"], None),
        (["ORIGINAL", "SECONDARY", "AXIAL"], None),
        (["DERIVED", "PRIMARY", "AXIAL"], None),
        (["DERIVED", "SECONDARY", "AXIAL"], None),
        (["ORIGINAL", "PRIMARY", "MPR"], None),
        (["ORIGINAL", "PRIMARY", "PERFUSION", "NONE"], None),
        (["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND"], None),
        (["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND"], None),
        (["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], None),
        (["ORIGINAL", "PRIMARY", "P", "ND"], None),
        (["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], None),
        (None, None),
    ],
)
def test_image_type_decides(image_type: list[str] | None, reason: str | None) -> None:
    assert exclusion_reason(image(image_type, MR)) == reason


def test_secondary_captures_are_kept_only_if_gray_and_in_the_patient() -> None:
    for number in ("7", "7.1", "7.2", "7.3", "7.4"):
        assert exclusion_reason(image(["DERIVED", "SECONDARY"], STORAGE + number)) == "secondary capture"
    place = {"ImagePositionPatient": [0, 0, 0]}
    assert exclusion_reason(image(["DERIVED", "SECONDARY"], SECONDARY_CAPTURE, **place)) is None
    colour = image(["DERIVED", "SECONDARY"], SECONDARY_CAPTURE, **place)
    colour.PhotometricInterpretation = "RGB"
    assert exclusion_reason(colour) == "secondary capture"
    assert exclusion_reason(image(["ORIGINAL", "PRIMARY"], STORAGE + "77.1.4")) is None  # 7 is no prefix of 77


def test_free_text_excludes_nothing() -> None:
    header = image(["ORIGINAL", "PRIMARY", "AXIAL"], SeriesDescription="localizer MIP", ImageComments="MPR")
    header.ProtocolName = "scout"
    assert exclusion_reason(header) is None
    assert UID(CT).name == "CT Image Storage"


def test_reasons_can_be_written_as_people_write_them() -> None:
    assert included_reasons("secondary-capture") == {"secondary capture"}
    assert included_reasons(["Calculated Map", "localizer", "secondary_capture"]) == {
        "calculated map",
        "localizer",
        "secondary capture",
    }
    assert included_reasons(EXCLUSION_REASONS) == set(EXCLUSION_REASONS)
    assert included_reasons(()) == frozenset()
    with pytest.raises(ValueError, match=r"left out as 'segmentation': choose of localizer, mosaic, .*capture"):
        included_reasons("segmentation")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((number, True) for number in ("2", "4.1", "7", "77.1.4", "128", "481.1")),
        *((number, False) for number in ("66", "88.33", "481.3", "104.1", "1.2.3")),
    ],
)
def test_classes_of_images(number: str, expected: bool) -> None:
    assert is_image_class(image(sop_class=STORAGE + number)) is expected
