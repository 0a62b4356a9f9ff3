# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Small files of every kind that is read, and what can be done to them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom import Dataset, FileDataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

__all__ = ["CANARY", "KINDS", "SEEDS", "Damage", "damaged"]

CANARY = "Zebracanary"
"""Text of the DICOM files that no message may repeat."""

KINDS = ("set", "number", "cut", "drop", "repeat", "insert", "value", "value", "value", "VR", "remove")
"""What can be done to a file; the last ones to an element of a DICOM data set, elsewhere they set a byte."""

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_VALUES = (
    b"", b"\0\0", b"\xff\xff", b"\x01\0", b"\x11\0", b"-1", b"0", b"1e400", b"nan", b"1\\2", b"0\\0\\0\\0\\0\\0",
    b"1\\0\\0\\1\\0\\0", b"99999999999999999999", CANARY.encode(), CANARY.upper().encode(),
    f"{CANARY}^Jane".encode(), b"\\\\\\", b"\0" * 8, b"\xff" * 8, b"7" * 40,
    b"1.2.840.10008.1.2.4.50", b"MONOCHROME1", b"PALETTE COLOR", b"YBR_FULL_422", b"RGB", b"\x08\0", b"\x03\0",
    b"\x10\0", b"1\\2\\3", b"-1\\-1", b"\xe4\xf6\xfc", b"$(x)",
)  # fmt: skip

_VRS = ("XX", "UN", "SQ", "OB", "US", "FD", "PN", "DS", "IS", "AT", "DA")


class Damage(NamedTuple):
    """One thing that is done to a file: which, where (0 to 1), and with which number."""

    kind: str
    place: float
    number: int


def damaged(seed: str, damages: Sequence[Damage]) -> bytes:
    """A file of `SEEDS` after some damages, which may leave it as it was. Deflated data sets are damaged inflated."""
    data = _bytes(seed)
    elements = [damage for damage in damages if damage.kind in ("value", "VR", "remove") and seed.endswith(".dcm")]
    start = 144 + int.from_bytes(data[140:144], "little") if seed == "deflated.dcm" else 0
    if start:
        data = data[:start] + zlib.decompress(data[start:], -zlib.MAX_WBITS)
    places = _places(seed, data)
    chosen = {places[int(damage.place * len(places))]: damage for damage in elements}
    for place in sorted(chosen, reverse=True):  # from the end, so that what lies before stays where it is
        data = data[: place.start] + _element(data, place, chosen[place]) + data[place.end :]
    for damage in damages:
        if damage not in elements:
            data = _apply(data, damage)
    if not start:
        return data
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[:start] + deflate.compress(data[start:]) + deflate.flush()


def _apply(data: bytes, damage: Damage) -> bytes:
    place, number = int(damage.place * len(data)), damage.number
    length = 1 + number % 64
    if damage.kind == "number":
        width = (1, 2, 4, 8)[number % 4]
        value = _NUMBERS[number // 4 % len(_NUMBERS)] % 2 ** (8 * width)
        return data[:place] + value.to_bytes(width, ("little", "big")[number // 64 % 2]) + data[place + width :]
    if damage.kind == "cut":
        return data[:place]
    if damage.kind == "drop":
        return data[:place] + data[place + length :]
    if damage.kind == "repeat":
        return data[:place] + data[place : place + length] * (2 + number % 3) + data[place + length :]
    if damage.kind == "insert":
        return data[:place] + number.to_bytes(4, "little") * (1 + number % 5) + data[place:]
    return data[:place] + bytes([number % 256]) + data[place + 1 :]


class _Place(NamedTuple):
    """Where an element of a DICOM file begins, where its value does, where it ends, and how it is encoded."""

    start: int
    value: int
    end: int
    vr: str
    implicit: bool
    little: bool


@cache
def _places(seed: str, data: bytes) -> list[_Place]:
    """The elements of an undamaged DICOM file, also those within items, without sequences and pixels."""
    if not seed.endswith(".dcm"):
        return []
    stream = io.BytesIO(data)
    if seed == "deflated.dcm":  # which was inflated
        stream.seek(144 + int.from_bytes(data[140:144], "little"))
        dataset = read_dataset(stream, False, True)
    else:
        dataset = dcmread(stream)
    return _places_within(dataset)


def _places_within(dataset: Dataset) -> list[_Place]:
    found = []
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        if not element.is_raw:
            for item in element.value:
                found += _places_within(item)
        elif tag != 0x7FE00010:
            long = element.VR in EXPLICIT_VR_LENGTH_32 and not element.is_implicit_VR
            begin, end = element.value_tell - (12 if long else 8), element.value_tell + element.length
            found.append(
                _Place(begin, element.value_tell, end, element.VR, element.is_implicit_VR, element.is_little_endian)
            )
    return found


def _element(data: bytes, place: _Place, damage: Damage) -> bytes:
    """What stands in the place of an element."""
    if damage.kind == "remove":
        return b""
    order = "little" if place.little else "big"
    tag, value, vr = data[place.start : place.start + 4], _VALUES[damage.number % len(_VALUES)], place.vr
    if damage.kind == "VR":
        value, vr = data[place.value : place.end], _VRS[damage.number % len(_VRS)]
    value += b" " * (len(value) % 2)
    if place.implicit:
        return tag + len(value).to_bytes(4, order) + value
    if vr in EXPLICIT_VR_LENGTH_32:
        return tag + vr.encode() + b"\0\0" + len(value).to_bytes(4, order) + value
    return tag + vr.encode() + len(value).to_bytes(2, order) + value


@cache
def _bytes(seed: str) -> bytes:
    made = SEEDS[seed]()
    if isinstance(made, bytes):
        return made
    for element in made:
        if element.VR == "SQ":  # items of undefined length, so that what is longer still fits in
            _leave_lengths_open(element)
    stream = io.BytesIO()
    implicit, little = made.original_encoding
    made.save_as(stream, implicit_vr=implicit, little_endian=little)
    return stream.getvalue()


def _leave_lengths_open(sequence: DataElement) -> None:
    sequence.is_undefined_length = True
    for item in sequence.value:
        item.is_undefined_length_sequence_item = True
        for element in item:
            if element.VR == "SQ":
                _leave_lengths_open(element)


def _slice(syntax: UID = ExplicitVRLittleEndian, *, colour: bool = False, count: int = 1) -> FileDataset:
    """One CT slice of 16 x 16, or a colour picture; `count` frames."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.FileMetaInformationGroupLength = 0  # the right number is filled in when it is written
    header = FileDataset(None, Dataset(), b"\0" * 128, meta, syntax.is_implicit_VR, syntax.is_little_endian)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1" if colour else "1.2.840.10008.5.1.4.1.1.2"
    header.SOPInstanceUID, header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    header.Modality = "US" if colour else "CT"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.PatientName = header.PatientID = header.SeriesDescription = header.ProtocolName = CANARY
    header.BodyPartExamined = "HEAD"
    header.InstanceNumber = header.SeriesNumber = 1
    header.Rows = header.Columns = 16
    header.SamplesPerPixel = 3 if colour else 1
    header.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 8 if colour else 16
    header.HighBit, header.PixelRepresentation = header.BitsStored - 1, 0
    shape = (count, 16, 16, header.SamplesPerPixel)
    pixels = np.arange(np.prod(shape)) % (256 if colour else 4000)
    header.PixelData = pixels.astype("u1" if colour else "<u2" if syntax.is_little_endian else ">u2").tobytes()
    if colour:
        header.PlanarConfiguration = 0
    else:
        header.RescaleSlope, header.RescaleIntercept = "1", "-1024"
        header.WindowCenter, header.WindowWidth = ["40", "400"], ["400", "1500"]
        header.PixelPaddingValue = 63
        header.FrameOfReferenceUID = "1.2.6"
        header.ImageOrientationPatient, header.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 5]
        header.PixelSpacing, header.SliceThickness = [0.5, 0.5], 3
    if count > 1:
        header.NumberOfFrames = count
    return header


def _cine() -> FileDataset:
    header = _slice(colour=True, count=3)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    header.FrameTimeVector = [0, 40, 40]
    header.FrameIncrementPointer = 0x00181065
    header.CineRate = 25
    return header


def _palette() -> FileDataset:
    header = _slice(colour=True)
    header.PhotometricInterpretation, header.SamplesPerPixel = "PALETTE COLOR", 1
    del header.PlanarConfiguration
    header.PixelData = bytes(range(256))
    for name in ("Red", "Green", "Blue"):
        setattr(header, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(header, f"{name}PaletteColorLookupTableData", np.arange(0, 65536, 256, dtype="<u2").tobytes())
    return header


def _enhanced() -> FileDataset:
    header = _slice(count=3)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    shared = Dataset()
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = header.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = header.PixelSpacing, header.SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    groups = []
    for index in range(3):
        content, position, rescale, window = Dataset(), Dataset(), Dataset(), Dataset()
        content.StackID, content.InStackPositionNumber = "1", index + 1
        position.ImagePositionPatient = [0, 0, 3 * index]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
        window.WindowCenter, window.WindowWidth = 40, 400
        group = Dataset()
        group.FrameContentSequence, group.PlanePositionSequence = [content], [position]
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescale], [window]
        groups.append(group)
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], groups
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope",
                    "RescaleIntercept"):  # fmt: skip
        del header[keyword]
    return header


def _lookup() -> FileDataset:
    """A modality LUT and a VOI LUT, whose tables are indexed by the stored values."""
    header = _slice()
    del header.RescaleSlope, header.RescaleIntercept, header.WindowCenter, header.WindowWidth
    header.Modality, header.PhotometricInterpretation = "DX", "MONOCHROME1"
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 16])
    table.add_new("LUTData", "OW", np.arange(256, dtype="<u2").tobytes())
    table.ModalityLUTType = "US"
    header.ModalityLUTSequence, header.VOILUTSequence = [table], [table]
    return header


def _rle() -> FileDataset:
    header = _slice(colour=True)
    header.compress(RLELossless, generate_instance_uid=False)
    return header


def _jpeg_ls() -> FileDataset:
    header = _slice()
    header.compress(JPEGLSLossless, generate_instance_uid=False)
    return header


def _coded(syntax: UID, kind: str) -> FileDataset:
    header = _slice(colour=True)
    header.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    Image.fromarray(np.frombuffer(header.PixelData, np.uint8).reshape(16, 16, 3)).save(stream, kind)
    header.PixelData = encapsulate([stream.getvalue()])
    header["PixelData"].is_undefined_length = True
    header.PhotometricInterpretation = "YBR_FULL_422" if kind == "JPEG" else "RGB"
    return header


def _nifti(kind: type[nib.Nifti1Image], dtype: str) -> bytes:
    image = kind(np.arange(480, dtype=dtype).reshape(8, 10, 6), np.diag([2.0, 2.0, 5.0, 1.0]))
    image.header.set_slope_inter(2, -1)
    content: bytes = image.to_bytes()
    return content


def _picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    values = np.arange(16 * 20 * 3, dtype=np.uint8).reshape(16, 20, 3)
    picture = Image.fromarray(values.astype(np.uint16)[..., 0] * 257) if mode == "I;16" else Image.fromarray(values)
    stream = io.BytesIO()
    (picture if mode == "I;16" else picture.convert(mode)).save(stream, kind, **options)
    return stream.getvalue()


SEEDS: dict[str, Callable[[], bytes | FileDataset]] = {
    "explicit.dcm": _slice,
    "implicit.dcm": lambda: _slice(ImplicitVRLittleEndian),
    "big_endian.dcm": lambda: _slice(ExplicitVRBigEndian),
    "deflated.dcm": lambda: _slice(DeflatedExplicitVRLittleEndian),
    "colour.dcm": lambda: _slice(colour=True),
    "cine.dcm": _cine,
    "palette.dcm": _palette,
    "enhanced.dcm": _enhanced,
    "lookup.dcm": _lookup,
    "rle.dcm": _rle,
    "jpeg_ls.dcm": _jpeg_ls,
    "jpeg.dcm": lambda: _coded(JPEGBaseline8Bit, "JPEG"),
    "jpeg2000.dcm": lambda: _coded(JPEG2000Lossless, "JPEG2000"),
    "volume.nii": lambda: _nifti(nib.Nifti1Image, "<i2"),
    "volume2.nii": lambda: _nifti(nib.Nifti2Image, ">f4"),
    "volume.nii.gz": lambda: gzip.compress(_nifti(nib.Nifti1Image, "<u1"), mtime=0),
    "rgb.png": lambda: _picture("PNG"),
    "palette.png": lambda: _picture("PNG", "P"),
    "deep.png": lambda: _picture("PNG", "I;16"),
    "photo.jpg": lambda: _picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    "pages.tif": lambda: _picture("TIFF", "L", save_all=True, append_images=[Image.new("L", (9, 7))]),
    "lzw.tif": lambda: _picture("TIFF", compression="tiff_lzw"),
    "old.gif": lambda: _picture("GIF", "P"),
    "old.bmp": lambda: _picture("BMP"),
}
"""Makers of a file, by its name; of a data set where its elements can be damaged."""
