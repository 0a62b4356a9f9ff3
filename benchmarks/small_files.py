# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Small files of every kind that is read."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
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

__all__ = ["CANARY", "SEEDS", "make_slice"]

CANARY = "Zebracanary"
"""Text of the DICOM files that no message may repeat."""


def make_slice(syntax: UID = ExplicitVRLittleEndian, *, colour: bool = False, count: int = 1) -> FileDataset:
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
    header = make_slice(colour=True, count=3)
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    header.FrameTimeVector = [0, 40, 40]
    header.FrameIncrementPointer = 0x00181065
    header.CineRate = 25
    return header


def _palette() -> FileDataset:
    header = make_slice(colour=True)
    header.PhotometricInterpretation, header.SamplesPerPixel = "PALETTE COLOR", 1
    del header.PlanarConfiguration
    header.PixelData = bytes(range(256))
    for name in ("Red", "Green", "Blue"):
        setattr(header, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(header, f"{name}PaletteColorLookupTableData", np.arange(0, 65536, 256, dtype="<u2").tobytes())
    return header


def _enhanced() -> FileDataset:
    header = make_slice(count=3)
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
    header = make_slice()
    del header.RescaleSlope, header.RescaleIntercept, header.WindowCenter, header.WindowWidth
    header.Modality, header.PhotometricInterpretation = "DX", "MONOCHROME1"
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 16])
    table.add_new("LUTData", "OW", np.arange(256, dtype="<u2").tobytes())
    table.ModalityLUTType = "US"
    header.ModalityLUTSequence, header.VOILUTSequence = [table], [table]
    return header


def _rle() -> FileDataset:
    header = make_slice(colour=True)
    header.compress(RLELossless, generate_instance_uid=False)
    return header


def _jpeg_ls() -> FileDataset:
    header = make_slice()
    header.compress(JPEGLSLossless, generate_instance_uid=False)
    return header


def _coded(syntax: UID, kind: str) -> FileDataset:
    header = make_slice(colour=True)
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
    "explicit.dcm": make_slice,
    "implicit.dcm": lambda: make_slice(ImplicitVRLittleEndian),
    "big_endian.dcm": lambda: make_slice(ExplicitVRBigEndian),
    "deflated.dcm": lambda: make_slice(DeflatedExplicitVRLittleEndian),
    "colour.dcm": lambda: make_slice(colour=True),
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
