# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Head and lung volumes with a lesion in a few slices: as arrays, as NIfTI and as a DICOM series."""

from __future__ import annotations

import inspect
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.demo.heads import FIELD_OF_VIEW_MM, Z_RANGE, Head, HeadLesion, Lung
from monai_anomalyclip.demo.medical import CT_LESIONS, MR_LESIONS, head_lesion_layer
from monai_anomalyclip.demo.textures import paint

__all__ = ["VolumePhantom", "make_volume", "write_dicom_series", "write_nifti"]

_KINDS = {"brain_mr": MR_LESIONS, "head_ct": CT_LESIONS, "lung_ct": ("nodule",)}
_WINDOWS = {"brain_mr": (500, 1000), "head_ct": (40, 90), "lung_ct": (-600, 1500)}
_GANTRY_TILT = np.deg2rad(7.0)
# A file with preamble and file meta information, in the words of pydicom 3 or of 2.4, which MONAI Label needs.
_WHOLE_FILE: dict[str, Any] = (
    {"enforce_file_format": True}
    if "enforce_file_format" in inspect.signature(Dataset.save_as).parameters
    else {"write_like_original": False}
)


@dataclass(frozen=True)
class VolumePhantom:
    """A head or lung: ``image`` (X, Y, Z) int16, ``mask`` (X, Y, Z) bool, ``affine`` (4, 4) from index to RAS mm.

    CT is in Hounsfield units. X runs to the patient's left, Y to the back and Z to the crown,
    tilted by seven degrees as with a tilted gantry.
    """

    image: NDArray[np.int16]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    kind: str


def make_volume(
    family: str, seed: int, *, anomalous: bool = True, size: int = 224, slices: int = 20, slice_spacing: float = 4.0
) -> VolumePhantom:
    """Draws a volume with one three-dimensional lesion.

    Args:
        family: "brain_mr", "head_ct" or "lung_ct".
        seed: at least 0.
        anomalous: whether there is a lesion; without it the mask is empty and the rest is the same.
        size: pixels per side of a slice, over a field of view of 224 mm.
        slices: number of slices around the middle.
        slice_spacing: millimetres.

    Raises:
        ValueError: unknown family, or slices that reach beyond the phantom.
    """
    if family not in _KINDS:
        raise ValueError(f"There are volumes of {', '.join(map(repr, _KINDS))}, not of {family!r}.")
    heights = (np.arange(slices) - (slices - 1) / 2) * slice_spacing / FIELD_OF_VIEW_MM
    if slices < 1 or np.abs(heights).max() > Z_RANGE:
        raise ValueError(
            f"{slices} slices every {slice_spacing} mm reach beyond the phantom's "
            f"{2 * Z_RANGE * FIELD_OF_VIEW_MM:.0f} mm."
        )
    contrast, kinds = "mr" if family == "brain_mr" else "ct", _KINDS[family]
    rng, lesion_rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    body = Lung(rng, size) if family == "lung_ct" else Head(rng, size, contrast)
    planes = [body.plane(float(z), rng) for z in heights]
    middle = int(lesion_rng.integers(slices // 4, max(slices // 4 + 1, 3 * slices // 4)))
    lesion = HeadLesion.random(lesion_rng, planes[middle], float(heights[middle]), kinds)
    images, masks = [], []
    for z, plane in zip(heights, planes, strict=True):
        damage = head_lesion_layer(lesion, plane, body.contrast, float(z))
        mask = (damage.alpha > 0.05) & anomalous
        images.append(paint(plane.image, np.where(mask, damage.alpha, 0.0), damage.layer) + plane.noise)
        masks.append(mask)
    stack = np.stack(images, axis=-1).swapaxes(0, 1) * (1 if contrast == "ct" else 1000)
    low = -1024 if contrast == "ct" else 0
    pixel = FIELD_OF_VIEW_MM / size
    turn = np.array(
        [[1, 0, 0], [0, np.cos(_GANTRY_TILT), -np.sin(_GANTRY_TILT)], [0, np.sin(_GANTRY_TILT), np.cos(_GANTRY_TILT)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-pixel, -pixel, slice_spacing])
    affine[:3, 3] = -affine[:3, :3] @ [(size - 1) / 2, (size - 1) / 2, (slices - 1) / 2] + [4.0, -11.0, 27.0]
    return VolumePhantom(
        np.ascontiguousarray(np.rint(np.clip(stack, low, 3071)).astype(np.int16)),
        np.ascontiguousarray(np.stack(masks, axis=-1).swapaxes(0, 1)),
        affine,
        lesion.kind if anomalous else "",
    )


def write_nifti(path: str | os.PathLike[str], array: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    """Writes (X, Y, Z) to a ``.nii`` or ``.nii.gz`` file with its affine in both header forms.

    Raises:
        FileExistsError: ``path`` exists.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another name or remove it first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = nib.nifti1.Nifti1Image(array, affine)
    picture.header.set_xyzt_units("mm")
    picture.set_sform(affine, code=1)
    picture.set_qform(affine, code=1)
    with replaced_when_complete(path) as unfinished:
        nib.loadsave.save(picture, unfinished)
    return path


def _slice(phantom: VolumePhantom, seed: int, index: int, family: str) -> Dataset:
    ct, lung = family != "brain_mr", family == "lung_ct"
    flip = np.diag([-1.0, -1.0, 1.0])  # RAS to DICOM's LPS
    axes = flip @ phantom.affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    position = flip @ (phantom.affine[:3, :3] @ [0, 0, index] + phantom.affine[:3, 3])
    name = ["monai_anomalyclip phantom", str(seed), str(phantom.image.shape), *["MR"] * (not ct), *["lung"] * lung]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage if ct else MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[*name, f"slice {index}"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = generate_uid(entropy_srcs=[*name, "study"])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=[*name, "series"])
    data.FrameOfReferenceUID = generate_uid(entropy_srcs=[*name, "frame of reference"])
    data.PositionReferenceIndicator = ""
    data.PatientName, data.PatientID = f"Phantom^{'Lung' if lung else 'Head'}", f"PHANTOM{seed}"
    data.PatientBirthDate, data.PatientSex = "", ""
    data.StudyDate, data.StudyTime, data.AccessionNumber, data.StudyID = "20240101", "120000", "", "1"
    data.ReferringPhysicianName, data.Manufacturer = "", "monai_anomalyclip"
    data.Modality, data.ImageType = "CT" if ct else "MR", ["DERIVED", "SECONDARY", "AXIAL"]
    data.SeriesNumber, data.AcquisitionNumber, data.InstanceNumber = 1, 1, index + 1
    part = "lung" if lung else "head"
    data.StudyDescription = f"synthetic {part} {data.Modality}"
    data.SeriesDescription, data.BodyPartExamined = f"synthetic {part} phantom", "LUNG" if lung else "HEAD"
    data.PatientPosition = "HFS"
    data.ImageOrientationPatient = [f"{v:.10g}" for v in (*(axes[:, 0] / spacing[0]), *(axes[:, 1] / spacing[1]))]
    data.ImagePositionPatient = [f"{v:.10g}" for v in position]
    data.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
    data.SliceThickness = data.SpacingBetweenSlices = f"{spacing[2]:.10g}"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Columns, data.Rows = phantom.image.shape[:2]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    if ct:
        data.KVP = None
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
    else:
        data.ScanningSequence, data.SequenceVariant, data.ScanOptions, data.MRAcquisitionType = "SE", "NONE", "", "2D"
        data.RepetitionTime = data.EchoTime = data.EchoTrainLength = None
    data.WindowCenter, data.WindowWidth = _WINDOWS[family]
    data.PixelData = (phantom.image[:, :, index].T.astype(np.int32) + (1024 if ct else 0)).astype("<u2").tobytes()
    return data


def write_dicom_series(
    folder: str | os.PathLike[str],
    seed: int,
    *,
    anomalous: bool = True,
    size: int = 224,
    slices: int = 20,
    slice_spacing: float = 4.0,
    family: str = "head_ct",
) -> VolumePhantom:
    """Writes a volume as one DICOM file per slice; the file names' order is not the slices' order, as in real studies.

    Args:
        folder: made here, all at once; see :func:`make_volume` for the rest.

    Returns:
        The volume that was written, with its lesion mask.

    Raises:
        FileExistsError: ``folder`` exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another name or remove it first.")
    phantom = make_volume(family, seed, anomalous=anomalous, size=size, slices=slices, slice_spacing=slice_spacing)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as unfinished:
        order = np.random.default_rng(seed).permutation(slices)
        inner = Path(unfinished) / folder.name
        inner.mkdir()
        for index in range(slices):
            file = inner / f"IM{order[index]:04d}.dcm"
            _slice(phantom, seed, index, family).save_as(file, **_WHOLE_FILE)
        os.replace(inner, folder)
    return phantom
