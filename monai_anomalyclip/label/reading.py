# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read the images of a MONAI Label server: its pictures and volumes, and what it makes of DICOM series.

DICOM goes through SimpleITK, as in MONAI Label itself: results then lie on the grid on which its viewers and its DICOM
segmentation writer expect them, and compressed files need nothing of pydicom, which MONAI Label 0.8.5 keeps at
version 2. SimpleITK applies the rescale and turns MONOCHROME1 to MONOCHROME2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.frames import FRAME_SUFFIXES
from monai_anomalyclip.data.inputs import load_input
from monai_anomalyclip.transforms.intensity import ScaleIntensityForCLIP
from monai_anomalyclip.transforms.intensity_presets import choose_preset

__all__ = ["is_picture", "itk_affine", "read_image"]

_NIFTI = (".nii", ".nii.gz")
_TAGS = {"modality": "0008|0060", "body_part": "0018|0015", "series": "0008|103e", "study": "0008|1030"}


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture by its name, with rows first once read."""
    return Path(path).name.lower().endswith(FRAME_SUFFIXES)


def read_image(path: str | os.PathLike[str], preset: str = "auto") -> MetaTensor:
    """Read an image and scale it to [0, 1].

    Args:
        path: a picture, a NIfTI or NRRD volume, a DICOM file, or a folder with one DICOM series.
        preset: intensity preset of volumes (see :mod:`monai_anomalyclip.transforms.intensity_presets`).

    Returns:
        (3, H, W) for a picture, (1, X, Y, Z) for gray, (3, X, Y, Z) for colour; float32. Slices of colour volumes are
        those along Z, shown as stored.

    Raises:
        UnreadableInputError: it cannot be read.
        ValueError: there is no such preset.
    """
    name = Path(path).name.lower()
    if is_picture(path):
        image = load_input(path)
        return _scaled(image, "auto")
    if name.endswith(_NIFTI):
        colour = _colour_nifti(path)
        volume = load_input(path) if colour is None else colour
        # MONAI Label keeps the series that it made a NIfTI of in a folder of the same name.
        series = Path(path).with_name(Path(path).name[: -len(_suffix(name))])
        tags = _tags_of_the_series(series)
    else:
        volume, tags = _read_itk(path)
    if volume.shape[0] == 1 and tags.get("modality"):
        # The window follows the headers as it does for studies, but for windows that each file states for itself.
        preset = choose_preset(tags["modality"], tags["body_part"], [tags["series"], tags["study"]], preset).preset
    return _scaled(volume, preset)


def itk_affine(image: Any) -> npt.NDArray[np.float64]:
    """(4, 4) matrix from voxel indices to RAS mm of a SimpleITK volume or picture."""
    size = image.GetDimension()
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (size, size))
    affine[:size, :size] = directions * np.asarray(image.GetSpacing())
    affine[:size, 3] = image.GetOrigin()
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _scaled(image: MetaTensor, preset: str) -> MetaTensor:
    scaled = ScaleIntensityForCLIP(preset=preset)(image)
    assert isinstance(scaled, MetaTensor)
    return scaled


def _colour_nifti(path: str | os.PathLike[str]) -> MetaTensor | None:
    """A NIfTI of colours, as MONAI Label makes it of RGB series, as (3, X, Y, Z) uint8; None for gray ones."""
    try:
        file = nib.loadsave.load(path)
        shape, dtype = file.shape, file.get_data_dtype()
        if dtype.fields:
            structured = np.asarray(file.dataobj)
            values = np.stack([structured[channel] for channel in ("R", "G", "B")], axis=-1)
        elif len(shape) == 5 and shape[3:] == (1, 3):
            values = np.asarray(file.dataobj)[:, :, :, 0]
        else:
            return None
    except Exception:  # the reader of gray volumes says what is wrong
        return None
    if values.min() < 0 or values.max() > 255:
        raise UnreadableInputError(f"Cannot read {Path(path).name!r}: colours must lie in 0..255; save them as 8-bit.")
    while values.ndim < 4:
        values = values[..., None, :]
    return _volume(np.moveaxis(values, -1, 0).astype(np.uint8), np.asarray(file.affine), native=True)


def _read_itk(path: str | os.PathLike[str]) -> tuple[MetaTensor, dict[str, str]]:
    try:
        files = _series_files(Path(path))
        tags = _read_tags(files[0])
        image = sitk.ReadImage(files) if len(files) > 1 else sitk.ReadImage(files[0])
    except RuntimeError as error:  # ITK's message quotes paths and headers
        raise UnreadableInputError(
            f"Cannot read {Path(path).name!r}: it is no DICOM image, series or volume that SimpleITK knows."
        ) from error
    values = sitk.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    if channels not in (1, 3):
        raise UnreadableInputError(f"Cannot read {Path(path).name!r}: it has {channels} values per pixel, not 1 or 3.")
    values = values[..., None] if channels == 1 else values  # (frames,) rows, columns, channels
    while values.ndim < 4:
        values = values[None]
    if channels == 3 and values.dtype != np.uint8:
        raise UnreadableInputError(f"Cannot read {Path(path).name!r}: colours of {values.dtype} are not supported.")
    numbers = values.astype(np.uint8 if channels == 3 else np.float32)
    return _volume(numbers.transpose(3, 2, 1, 0), itk_affine(image), native=channels == 3), tags


def _tags_of_the_series(folder: Path) -> dict[str, str]:
    """The tags of the one DICOM series in a folder; none where it is another kind of folder, or there is none."""
    if not folder.is_dir():
        return {}
    try:
        return _read_tags(_series_files(folder)[0])
    except (UnreadableInputError, RuntimeError):
        return {}


def _read_tags(file: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return {name: reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else "" for name, tag in _TAGS.items()}


def _suffix(name: str) -> str:
    return next(suffix for suffix in _NIFTI if name.endswith(suffix))


def _series_files(path: Path) -> tuple[str, ...]:
    if not path.exists():
        raise UnreadableInputError(f"Cannot read {path.name!r}: there is no such file.")
    if path.is_file():
        return (str(path),)
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if len(series) != 1:
        raise UnreadableInputError(f"{path.name!r} holds {len(series)} DICOM series: give the folder of one.")
    return tuple(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), series[0]))


def _volume(values: npt.NDArray[Any], affine: npt.NDArray[np.float64], native: bool) -> MetaTensor:
    meta: dict[str, Any] = {"kind": "volume", "original_affine": affine.copy()}
    if native:
        meta["native_slices"] = 1
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values)), affine=torch.from_numpy(affine), meta=meta)
