# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs that say a name wherever a file can say something, and the search for that name in what was made of them."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import importlib
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image, PngImagePlugin
from pydicom import Dataset
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag

__all__ = [
    "BIRTH_DATE",
    "NAME",
    "holds",
    "identifying_uids",
    "make_inputs",
    "make_misplaced",
    "png_chunks",
    "texts_of",
    "where_held",
]

NAME = "Zebrafinch"  # 10 letters: no more fit into the shortest text of a NIfTI header
BIRTH_DATE = "19340129"

_TEXT_VRS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
_KEPT = {  # what other values hang on
    "SpecificCharacterSet", "DirectoryRecordType", "ConversionType", "DerivationDescription",
}  # fmt: skip
_ENCODED = [NAME.lower().encode(encoding) for encoding in ("ascii", "utf-16-le", "utf-16-be")]


def make_inputs(folder: Path) -> Path:
    """A tree of readable inputs and of damaged ones; every folder, file and text says the name."""
    phantoms = importlib.import_module("dicom_phantoms")
    patient = folder / f"{NAME}^Jane" / f"{NAME}-19340129"
    readable, damaged = patient / f"scans of {NAME}", patient / f"broken {NAME}"
    options = {"edit": lambda header, _: plant(header), "text": NAME, "count": 2}
    phantoms.make_series(readable / f"{NAME}_ct", seed=f"{NAME}a", **options)
    phantoms.make_series(readable / f"{NAME}_mr", seed=f"{NAME}b", modality="MR", enhanced=True, **options)
    one = {**options, "count": 1, "positioned": False}
    phantoms.make_series(readable / "us", seed=f"{NAME}c", modality="US", photometric="RGB", **one)
    phantoms.make_series(readable / "dx", seed=f"{NAME}d", modality="DX", **one)
    phantoms.make_series(readable / "localizer", seed=f"{NAME}e", localizer=True, **options)
    phantoms.make_cine(readable / f"{NAME}_cine", seed=f"{NAME}f", text=NAME, edit=plant)
    phantoms.make_object(readable, "1.2.840.10008.5.1.4.1.1.104.1", seed=f"{NAME}_pdf", DocumentTitle=NAME)
    _make_nifti(readable / f"{NAME}.nii.gz", nib.Nifti1Image)
    _make_nifti(readable / f"{NAME} 2.nii.gz", nib.Nifti2Image)
    _make_pictures(readable)
    _make_damaged(damaged, readable)
    return folder


def plant(header: Dataset) -> None:
    """Put the name into every attribute of the standard that holds text, into items, and into private elements."""
    for tag, (vr, *_) in DicomDictionary.items():
        keyword = keyword_for_tag(tag)
        if vr in _TEXT_VRS and tag >> 16 in range(0x0008, 0x7FE0) and keyword not in _KEPT:
            header.add_new(tag, vr, f"{NAME}^Jane" if vr == "PN" else NAME)
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = NAME, NAME, NAME
    item.PatientID = item.PatientName = item.InstitutionName = item.PersonName = NAME
    for keyword in ("AnatomicRegionSequence", "ProcedureCodeSequence", "RequestAttributesSequence",
                    "OtherPatientIDsSequence", "OriginalAttributesSequence", "ReferringPhysicianIdentificationSequence",
                    "PersonIdentificationCodeSequence", "ReferencedStudySequence"):  # fmt: skip
        setattr(header, keyword, [item])
    for keyword in ("PatientBirthDate", "ScheduledProcedureStepStartDate", "LastMenstrualDate"):
        setattr(header, keyword, BIRTH_DATE)
    header.private_block(0x0029, NAME, create=True).add_new(0x10, "LO", NAME)
    header.private_block(0x0029, NAME).add_new(0x11, "OB", NAME.encode() + b"\0")


def _make_nifti(path: Path, kind: type[nib.Nifti1Image]) -> None:
    image = kind(np.arange(320, dtype=np.int16).reshape(20, 16, 1), np.eye(4))
    fields = [field for field in image.header if image.header[field].dtype.kind == "S" and field != "magic"]
    assert len(fields) > 3
    for field in fields:
        image.header[field] = NAME.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode()))
    nib.save(image, path)


def _make_pictures(folder: Path) -> None:
    picture = Image.fromarray(np.arange(16 * 20 * 3, dtype=np.uint8).reshape(16, 20, 3))
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9C9B):  # description, artist, copyright, Windows' title
        exif[tag] = NAME.encode("utf-16-le") if tag == 0x9C9B else NAME
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Patient", NAME)
    chunks.add_text("Compressed", NAME, zip=True)
    chunks.add_itxt("Comment", NAME, "en", NAME)
    picture.save(folder / f"{NAME} 1.png", pnginfo=chunks, exif=exif)
    picture.save(folder / f"{NAME} 2.jpg", exif=exif, comment=NAME.encode())
    picture.save(folder / f"{NAME} 3.tif", tiffinfo={270: NAME, 315: NAME, 33432: NAME})
    picture.convert("P").save(folder / f"{NAME} 4.gif", comment=NAME.encode())


def _make_damaged(folder: Path, readable: Path) -> None:
    """Files that fail in every stage: when they are found, grouped, read."""
    phantoms = importlib.import_module("dicom_phantoms")
    folder.mkdir(parents=True)
    options = {"text": NAME, "count": 1}

    def syntax(header: Dataset) -> None:
        plant(header)
        header.Modality = "US"

    whole = phantoms.make_series(folder, seed=f"{NAME}g", edit=lambda header, _: plant(header), **options)[0]
    whole.write_bytes(whole.read_bytes()[:-100])  # pixels cut off
    header = phantoms.make_series(folder, seed=f"{NAME}h", edit=lambda header, _: plant(header), **options)[0]
    header.write_bytes(header.read_bytes()[:3000])  # header cut off
    wrong = phantoms.make_series(folder, seed=f"{NAME}i", edit=lambda header, _: syntax(header), **options)[0]
    image = pydicom.dcmread(wrong)
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.92"  # JPEG 2000 multi-component: nothing decodes it
    image.PixelData = encapsulate([NAME.encode() * 10])
    image.save_as(wrong)
    places = phantoms.make_series(folder, seed=f"{NAME}j", edit=_misplace, **options)
    places[0].rename(folder / f"{NAME} no suffix")
    (folder / f"{NAME} junk.dcm").write_bytes(b"\0" * 128 + b"DICM" + NAME.encode() * 9)
    (folder / f"{NAME} notes.txt").write_text(NAME)
    (folder / f"{NAME} cut.png").write_bytes((readable / f"{NAME} 1.png").read_bytes()[:-60])
    (folder / f"{NAME}.jpg").write_text(NAME)
    (folder / f"{NAME} cut.tif").write_bytes((readable / f"{NAME} 3.tif").read_bytes()[:-20])
    (folder / f"{NAME} cut.nii").write_bytes(gzip.decompress((readable / f"{NAME}.nii.gz").read_bytes())[:500])
    (folder / f"{NAME}_two_forms.nii.gz").write_bytes(_two_forms())
    (folder / f"{NAME}.mp4").write_text(NAME)
    (folder / f"{NAME}_link.png").symlink_to(folder / f"{NAME} nowhere.png")
    (folder / f"{NAME}_outside.png").symlink_to("/dev/null")


def make_misplaced(folder: Path) -> Path:
    """Series in which the name stands in the place of a number, a code or an identifier: one such place in each."""
    phantoms = importlib.import_module("dicom_phantoms")

    def put(keyword: str, header: Dataset) -> None:
        tag = Tag(keyword)
        value = NAME.upper().encode() + b" " * (len(NAME) % 2)
        header[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, keyword in enumerate(_MISPLACED):
            edit = functools.partial(put, keyword)
            options = {"count": 1, "text": "", "seed": str(number)}
            phantoms.make_series(folder / "ct", edit=lambda header, _, edit=edit: edit(header), **options)
        for number, keyword in enumerate(_MISPLACED_IN_FILMS):
            phantoms.make_cine(folder / "us", seed=str(number), text="", edit=functools.partial(put, keyword))
    return folder


_MISPLACED = (
    "Modality", "ImageType", "BodyPartExamined", "PatientSex", "ConversionType", "PhotometricInterpretation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelPaddingValue", "SeriesNumber",
    "InstanceNumber", "AcquisitionNumber", "EchoTime", "StudyDate", "PatientBirthDate", "ContentDate",
    "SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "SpecificCharacterSet",
    "Rows", "BitsStored", "Laterality", "PatientOrientation", "LossyImageCompression", "LossyImageCompressionRatio",
    "PresentationLUTShape", "VOILUTFunction", "NumberOfFrames", "BurnedInAnnotation",
)  # fmt: skip
_MISPLACED_IN_FILMS = (
    "FrameTime", "FrameTimeVector", "CineRate", "Modality", "NumberOfFrames", "LossyImageCompressionRatio",
)  # fmt: skip


def _misplace(header: Dataset, _: int) -> None:
    plant(header)
    header["ImagePositionPatient"] = pydicom.DataElement(0x00200032, "LO", [NAME, NAME, NAME])


def _two_forms() -> bytes:
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4))
    image.header["descrip"] = NAME.encode()
    image.set_sform(np.diag([2.0, 3, 4, 1]), 1)
    image.set_qform(np.eye(4), 1)
    image.header["pixdim"][1:4] = 1
    return gzip.compress(image.to_bytes())


def holds(content: bytes | str) -> bool:
    """Whether the name or the birth date stands in some text or bytes, in any case and the usual encodings."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    lower = data.lower()
    dates = (BIRTH_DATE, "1934-01-29", "29.01.1934", "01/29/1934")
    return any(name in lower for name in _ENCODED) or any(date.encode() in data for date in dates)


def texts_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """All that a file holds, also what is compressed or encoded within it."""
    data = path.read_bytes()
    yield path.name, data
    if path.name.endswith(".gz"):
        yield f"{path.name}, inflated", gzip.decompress(data)
    for number, encoded in enumerate(re.findall(rb"data:[\w/+-]+;base64,([\w+/=]+)", data)):
        yield f"{path.name}, picture {number}", base64.b64decode(encoded)


def png_chunks(data: bytes) -> list[str]:
    """Types of the chunks of a PNG."""
    kinds, place = [], 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        kinds.append(kind.decode())
        place += 12 + length
    return kinds


def where_held(dataset: Dataset, path: str = "") -> set[str]:
    """Keywords of the elements that hold the name, those within items after those of the sequence."""
    found = set()
    for element in dataset:
        name = f"{path}{element.keyword or Tag(element.tag)}"
        if element.VR == "SQ":
            for item in element.value:
                found |= where_held(item, f"{name}.")
        elif holds(bytes(element.value) if isinstance(element.value, bytes) else str(element.value)):
            found.add(name)
    return found


def identifying_uids(folder: Path) -> set[str]:
    """All UIDs of studies, series, images, ... in a folder; those of the standard itself tell nobody."""
    found: set[str] = set()

    def collect(_: Dataset, element: Any) -> None:
        if element.VR == "UI":
            found.update(str(uid) for uid in ([element.value] if isinstance(element.value, str) else element.value))

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with contextlib.suppress(Exception), warnings.catch_warnings():  # no DICOM, or damaged
                warnings.simplefilter("ignore")
                pydicom.dcmread(path, stop_before_pixels=True).walk(collect)
    return {uid for uid in found if uid and not uid.startswith("1.2.840.10008.")}
