# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic DICOM series whose voxel value is a linear function of the voxel's place in mm, with every kind of fault.

`make_series` writes single-frame files or one enhanced file; `make_legacy_enhanced` converts with highdicom;
`make_cine` writes a multi-frame picture without positions; `make_object` writes an object that is no image. All text
attributes hold `CANARY`, so that a test can look for it in logs and outputs. File names do not follow the order of the
slices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import openjpeg
import pydicom
from pydicom import Dataset, FileDataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from pydicom.valuerep import format_number_as_ds

CANARY = "CANARY^ZEBRA"

GRADIENT = np.array([1.5, 2.5, 4.0])
OFFSET = 40.0

ORIENTATIONS: dict[str, tuple[float, ...]] = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0.0, -0.36, 0.48, -0.8),
}

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "NM": "1.2.840.10008.5.1.4.1.1.20",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "XC": "1.2.840.10008.5.1.4.1.1.77.1.4",
    "ES": "1.2.840.10008.5.1.4.1.1.77.1.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
ENHANCED_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"

_TEXT = (
    "PatientName", "PatientID", "AccessionNumber", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName",
    "StudyDescription", "SeriesDescription", "StudyID", "ProtocolName", "OperatorsName", "PerformingPhysicianName",
    "PatientAddress", "PatientComments", "ImageComments", "StationName", "InstitutionalDepartmentName",
    "DeviceSerialNumber", "Manufacturer", "ManufacturerModelName", "RequestedProcedureDescription", "OtherPatientNames",
    "PerformedProcedureStepDescription", "AdditionalPatientHistory",
)  # fmt: skip


def value_at(points: np.ndarray) -> np.ndarray:
    """The phantom: value (after rescale) at (..., 3) points in mm, LPS."""
    return points @ GRADIENT + OFFSET


def slice_points(header: Dataset, orientation: Sequence[float], position: Sequence[float]) -> np.ndarray:
    """(rows, columns, 3) mm in LPS of the voxel centres of a slice (PS3.3 C.7.6.2.1.1)."""
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    row, column = np.meshgrid(np.arange(header.Rows), np.arange(header.Columns), indexing="ij")
    row_spacing, column_spacing = map(float, header.PixelSpacing)
    return np.array(position, float) + column[..., None] * column_spacing * across + row[..., None] * row_spacing * down


def make_series(
    folder: Path,
    *,
    count: int = 6,
    size: tuple[int, int] = (16, 20),
    spacing: float = 3.0,
    pixel_spacing: tuple[float, float] = (0.8, 0.5),
    orientation: str | Sequence[float] = "axial",
    origin: Sequence[float] = (-12.5, -9.25, -7.75),
    offsets: Sequence[float] | None = None,
    gap: Sequence[int] = (),
    duplicate: Sequence[int] = (),
    tilt: float = 0.0,
    echoes: Sequence[float] = (),
    b_values: Sequence[float] = (),
    b_vendor: str = "standard",
    temporal: int = 1,
    instance_numbers: str = "ascending",
    positioned: bool = True,
    modality: str = "CT",
    sop_class: str | None = None,
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "AXIAL"),
    localizer: bool = False,
    transfer_syntax: str = ExplicitVRLittleEndian,
    photometric: str = "MONOCHROME2",
    bits_stored: int | None = None,
    signed: bool = True,
    inverted: bool = False,
    slope: float | Sequence[float] | None = None,
    intercept: float | None = None,
    padding: int | None = None,
    preamble: bool = True,
    enhanced: bool = False,
    text: str = CANARY,
    seed: str = "a",
    study: str = "study",
    edit: Callable[[Dataset, int], None] | None = None,
) -> list[Path]:
    """Write a series; return its files in the order echo, b-value, time, slice along the normal, then the duplicates.

    Args:
        folder: is made if needed; several series may share it when their `seed` differs.
        count: slices per echo, b-value and time.
        size: (rows, columns).
        spacing: distance of slices along the normal in mm.
        pixel_spacing: (between rows, between columns) in mm.
        orientation: a key of `ORIENTATIONS` or six direction cosines.
        origin: position in mm of the first slice.
        offsets: distances in mm of the slices from the first, along the normal; instead of `count` and `spacing`.
        gap: slices, by number, that are not written.
        duplicate: slices, by number, that are written once more under another UID.
        tilt: degrees by which the direction of the stack leans from the normal towards the columns' direction.
        echoes: echo times in ms; every slice is written for each.
        b_values: in s/mm2; every slice is written for each.
        b_vendor: where the b-value stands: "standard", "siemens", "ge" (private elements).
        temporal: number of time points.
        instance_numbers: "ascending", "reversed" (against the slices) or "absent".
        positioned: False leaves out position, orientation and frame of reference.
        modality: chooses the SOP class.
        sop_class: UID, if not the usual one of the modality.
        image_type: values of Image Type.
        localizer: the third value of Image Type is LOCALIZER.
        transfer_syntax: any uncompressed one, deflated, RLE, JPEG-LS or (sides of at least 32) JPEG 2000 lossless.
        photometric: MONOCHROME1, MONOCHROME2, RGB, YBR_FULL or PALETTE COLOR. Colours: red, green and blue are
            128 + 2 * (x, y, z); the palette turns index i into (i, 255 - i, 128).
        bits_stored: 16 by default, 8 for colour; up to 8 are allocated as 8, more as 16.
        signed: Pixel Representation of gray values.
        inverted: store gray values upside down within the range that the bits allow.
        slope: Rescale Slope, or one for each slice; None: fine enough for the bits.
        intercept: Rescale Intercept; None: what fits the bits.
        padding: Pixel Padding Value; the first row of each slice holds it.
        preamble: False writes the bare data set, without file meta.
        enhanced: write all frames into one enhanced CT or MR file, with functional groups.
        text: what all text attributes hold.
        seed: series with another one get other UIDs and file names.
        study: the same for studies.
        edit: changes the header of the i-th file (in the order of the result) before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.array(ORIENTATIONS[orientation] if isinstance(orientation, str) else orientation, float)
    steps = [spacing * index for index in range(count)] if offsets is None else list(offsets)
    numbers = [index for index in range(len(steps)) if index not in gap]
    normal = np.cross(direction[:3], direction[3:])
    stack = normal + math.tan(math.radians(tilt)) * direction[3:]
    places = [np.array(origin, float) + stack * step for step in steps]

    frames = [
        (number, echo, b_value, time)
        for echo, b_value, time in itertools.product(
            enumerate(echoes, 1) if echoes else [None], b_values or [None], range(1, temporal + 1)
        )
        for number in numbers
    ]
    frames += [frame for frame in frames if frame[0] in duplicate]
    colour = not photometric.startswith("MONOCHROME")
    bits = bits_stored or (8 if colour else 16)
    rescale = None if colour else _rescale(places, direction, size, pixel_spacing, bits, signed, slope, intercept)

    headers: list[Dataset] = []
    for index, (number, echo, b_value, time) in enumerate(frames):
        header = _header(modality, sop_class, text, seed, study, index)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"] if localizer else list(image_type)
        header.Rows, header.Columns = size
        header.PixelSpacing = [_ds(value) for value in pixel_spacing]
        if instance_numbers != "absent":
            header.InstanceNumber = index + 1 if instance_numbers == "ascending" else len(frames) - index
        if positioned:
            header.FrameOfReferenceUID = _uid("frame of reference", seed, study)
            header.ImageOrientationPatient = [_ds(value) for value in direction]
            header.ImagePositionPatient = [_ds(value) for value in places[number]]
            header.SliceThickness = _ds(spacing)
        if echo is not None:
            header.EchoNumbers, header.EchoTime = echo[0], _ds(echo[1])
        if b_value is not None:
            _set_b_value(header, b_value, b_vendor)
        if temporal > 1:
            header.TemporalPositionIdentifier = time
        points = slice_points(header, direction, places[number])
        stored = _pixels(header, points, photometric, bits, signed, rescale, number, inverted)
        if padding is not None:
            header.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
            stored[0] = padding
        header.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
        headers.append(header)

    if enhanced:
        headers = [_enhanced(headers, modality, frames)]
    if not positioned and modality not in ("CT", "MR"):
        for header in headers:
            del header.PixelSpacing
    paths = []
    for index, header in enumerate(headers):
        if edit is not None:
            edit(header, index)
        paths.append(folder / f"{seed}{index * 7919 % 10007:05d}.dcm")
        write(header, paths[-1], transfer_syntax, preamble)
    return paths


def make_legacy_enhanced(folder: Path, **options: Any) -> Path:
    """One legacy-converted enhanced file of the series that `make_series` would write with these options."""
    headers = [pydicom.dcmread(path) for path in make_series(folder / "single", **options)]
    classes = {
        "CT": hd.legacy.LegacyConvertedEnhancedCTImage,
        "MR": hd.legacy.LegacyConvertedEnhancedMRImage,
        "PT": hd.legacy.LegacyConvertedEnhancedPETImage,
    }
    converted = classes[headers[0].Modality](headers, _uid("legacy series"), 7, _uid("legacy instance"), 1)
    path = folder / "legacy.dcm"
    converted.save_as(path)
    for single in (folder / "single").iterdir():
        single.unlink()
    (folder / "single").rmdir()
    return path


def picture(pixels: np.ndarray) -> Callable[[Dataset, int], None]:
    """An `edit` of `make_series` that puts a picture (H, W) or (H, W, 3), uint8, into the header."""

    def edit(header: Dataset, _: int) -> None:
        header.Rows, header.Columns = pixels.shape[:2]
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
        header.PixelData = pixels.tobytes()
        for keyword in ("RescaleSlope", "RescaleIntercept"):
            if keyword in header:
                del header[keyword]

    return edit


def make_cine(
    folder: Path,
    *,
    count: int = 5,
    size: tuple[int, int] = (24, 32),
    modality: str = "US",
    sop_class: str = ULTRASOUND_MULTIFRAME,
    photometric: str = "RGB",
    text: str = CANARY,
    seed: str = "cine",
    study: str = "study",
    edit: Callable[[Dataset], None] | None = None,
) -> Path:
    """A multi-frame picture without positions; frame t, row r, column c hold (10 t + r, c, 2 r) or 10 t + r + c."""
    folder.mkdir(parents=True, exist_ok=True)
    header = _header(modality, sop_class, text, seed, study, 0)
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.InstanceNumber = 1
    header.Rows, header.Columns = size
    header.NumberOfFrames = count
    header.FrameTime = "40"
    header.FrameIncrementPointer = 0x00181063
    time, row, column = np.meshgrid(*map(np.arange, (count, *size)), indexing="ij")
    if photometric.startswith("MONOCHROME"):
        pixels = 10 * time + row + column
    else:
        pixels = np.stack([10 * time + row, column, 2 * row], axis=-1)
    _image_pixel(header, photometric, 8, False, 1 if pixels.ndim == 3 else 3)
    header.PixelData = pixels.astype(np.uint8).tobytes()
    if edit is not None:
        edit(header)
    path = folder / f"{seed}.dcm"
    write(header, path)
    return path


def make_object(folder: Path, sop_class: str, modality: str = "OT", *, seed: str = "object", **attributes: Any) -> Path:
    """An object without pixels, of the given SOP class; `attributes` are set by keyword."""
    folder.mkdir(parents=True, exist_ok=True)
    header = _header(modality, sop_class, CANARY, seed, "study", 0)
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    path = folder / f"{seed}.dcm"
    write(header, path)
    return path


def spoil(header: Dataset, keyword: str) -> None:
    """Give an attribute a value that pydicom cannot decode: two-byte numbers in three bytes."""
    tag = Tag(keyword)
    header[tag] = RawDataElement(tag, "US", 3, b"abc", 0, False, True)


def write(header: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian, preamble: bool = True) -> None:
    """Write a data set (native, little endian pixels) in the transfer syntax; without preamble also without meta."""
    syntax = UID(transfer_syntax)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_compressed and not syntax.is_deflated else syntax
    file = FileDataset(None, header, b"\0" * 128, meta, syntax.is_implicit_VR, syntax.is_little_endian)
    if syntax == JPEG2000Lossless:  # pydicom's own encoder needs one more package
        pixels = file.pixel_array if int(file.get("NumberOfFrames", 1)) > 1 else file.pixel_array[None]
        space = 1 if file.SamplesPerPixel == 3 else 2
        coded = [openjpeg.encode(frame, file.BitsStored, space, use_mct=False) for frame in pixels]
        file.PixelData = encapsulate(coded)
        meta.TransferSyntaxUID = syntax
    elif syntax.is_encapsulated:
        file.compress(syntax, generate_instance_uid=False)
    elif not syntax.is_little_endian and header.get("BitsAllocated") == 16:
        file.PixelData = np.frombuffer(file.PixelData, "<u2").astype(">u2").tobytes()
    if preamble:
        file.save_as(path, enforce_file_format=True)
        return
    file.preamble = None
    file.file_meta = FileMetaDataset()
    file.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)


def _uid(*words: object) -> UID:
    return generate_uid(entropy_srcs=[str(word) for word in words])


def _ds(value: float) -> str:
    return str(format_number_as_ds(float(value)))


def _header(modality: str, sop_class: str | None, text: str, seed: str, study: str, index: int) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = UID(sop_class or SOP_CLASSES[modality])
    header.SOPInstanceUID = _uid("instance", study, seed, index)
    header.StudyInstanceUID = _uid("study", study)
    header.SeriesInstanceUID = _uid("series", study, seed)
    header.Modality = modality
    header.SeriesNumber = 3
    header.StudyDate = header.SeriesDate = header.ContentDate = header.AcquisitionDate = "20200102"
    header.StudyTime = header.SeriesTime = header.ContentTime = header.AcquisitionTime = "101112"
    header.PatientBirthDate = "19500607"
    header.PatientSex = "O"
    for keyword in _TEXT:
        setattr(header, keyword, text)
    return header


def _rescale(
    places: Sequence[np.ndarray],
    direction: np.ndarray,
    size: tuple[int, int],
    pixel_spacing: tuple[float, float],
    bits: int,
    signed: bool,
    slope: float | Sequence[float] | None,
    intercept: float | None,
) -> tuple[list[float], float]:
    """Slope of each slice, and the intercept, such that all values fit into the bits."""
    corners = [
        value_at(place + (row * pixel_spacing[0]) * direction[3:] + (column * pixel_spacing[1]) * direction[:3])
        for place in places
        for row in (0, size[0] - 1)
        for column in (0, size[1] - 1)
    ]
    low, high = math.floor(min(corners)), math.ceil(max(corners))
    if intercept is None:
        intercept = (low + high) // 2 if signed else low
    if slope is None:
        slope = max(0.02, math.ceil(1000 * (high - low) / (2**bits - 4)) / 1000)
    slopes = [slope] * len(places) if isinstance(slope, int | float) else list(slope)
    return slopes, intercept


def _pixels(
    header: Dataset,
    points: np.ndarray,
    photometric: str,
    bits: int,
    signed: bool,
    rescale: tuple[list[float], float] | None,
    number: int,
    inverted: bool,
) -> np.ndarray:
    """Stored values of one slice; sets the attributes that describe them."""
    if rescale is None:
        colours = np.clip(np.round(128 + 2 * points), 0, 255).astype(np.uint8)
        _image_pixel(header, photometric, 8, False, 1 if photometric == "PALETTE COLOR" else 3)
        if photometric == "PALETTE COLOR":
            entries = np.arange(256)
            for name, values in (("Red", entries), ("Green", 255 - entries), ("Blue", np.full(256, 128))):
                setattr(header, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
                setattr(header, f"{name}PaletteColorLookupTableData", (values * 257).astype("<u2").tobytes())
            return colours[..., 0].copy()
        return colours if photometric == "RGB" else convert_color_space(colours, "RGB", photometric)
    slopes, intercept = rescale
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    stored = np.round((value_at(points) - intercept) / slopes[number]).astype(int)
    if stored.min() < low or stored.max() > high:
        raise ValueError(f"stored values {stored.min()}..{stored.max()} do not fit {low}..{high}: choose another slope")
    if inverted:
        stored = low + high - stored
    header.RescaleSlope, header.RescaleIntercept = _ds(slopes[number]), _ds(intercept)
    _image_pixel(header, photometric, bits, signed, 1)
    return stored.astype(f"<{'i' if signed else 'u'}{header.BitsAllocated // 8}")


def _image_pixel(header: Dataset, photometric: str, bits: int, signed: bool, samples: int) -> None:
    header.PhotometricInterpretation = photometric
    header.SamplesPerPixel = samples
    if samples == 3:
        header.PlanarConfiguration = 0
    header.BitsAllocated = 8 if bits <= 8 else 16
    header.BitsStored = bits
    header.HighBit = bits - 1
    header.PixelRepresentation = int(signed)


def _set_b_value(header: Dataset, b_value: float, vendor: str) -> None:
    if vendor == "standard":
        header.DiffusionBValue = b_value
    elif vendor == "siemens":
        header.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", int(b_value))
    elif vendor == "ge":
        values = [1_000_000_000 + int(b_value), 8, 0, 0]
        header.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", values)
    else:
        raise ValueError(f"no such vendor: {vendor}")


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        if value is not None:
            setattr(item, keyword, value)
    return item


def _enhanced(headers: Sequence[Dataset], modality: str, frames: Sequence[Any]) -> Dataset:
    """One enhanced object: orientation and pixel measures shared, everything else for each frame."""
    first = headers[0]
    result = Dataset()
    result.update({tag: first[tag] for tag in first.keys()})  # noqa: SIM118 (a Dataset iterates over elements)
    result.SOPClassUID = UID(ENHANCED_CLASSES[modality])
    result.NumberOfFrames = len(headers)
    result.PixelData = b"".join(header.PixelData for header in headers)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=first.ImageOrientationPatient)]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)]
    result.SharedFunctionalGroupsSequence = [shared]
    result.PerFrameFunctionalGroupsSequence = list(_frame_groups(headers, frames))
    for keyword in (
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime", "EchoNumbers",
        "DiffusionBValue", "TemporalPositionIdentifier", "RescaleSlope", "RescaleIntercept",
    ):  # fmt: skip
        if keyword in result:
            del result[keyword]
    return result


def _frame_groups(headers: Sequence[Dataset], frames: Sequence[Any]) -> Iterator[Dataset]:
    for header, (number, _, _, time) in zip(headers, frames, strict=True):
        group = Dataset()
        group.FrameContentSequence = [_item(StackID="1", InStackPositionNumber=number + 1, TemporalPositionIndex=time)]
        group.PlanePositionSequence = [_item(ImagePositionPatient=header.ImagePositionPatient)]
        slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
        transformation = _item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")
        group.PixelValueTransformationSequence = [transformation]
        if "EchoTime" in header:
            group.MREchoSequence = [_item(EffectiveEchoTime=float(header.EchoTime))]
        if "DiffusionBValue" in header:
            group.MRDiffusionSequence = [_item(DiffusionBValue=header.DiffusionBValue)]
        yield group
