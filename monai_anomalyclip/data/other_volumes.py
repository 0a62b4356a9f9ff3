# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Volumes of other kinds than NIfTI: NRRD and MetaImage with SimpleITK, FreeSurfer's MGH with nibabel."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.input_files import ITK_SUFFIXES

__all__ = ["describe_other", "itk_affine", "read_other", "voxel_files"]

_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_HEADER_BYTES = 2**16


def describe_other(path: Path) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """Shape and affine (voxel index to mm in RAS) of a volume by its header.

    Raises:
        UnreadableInputError: its voxels are no gray values, or lie in another folder.
        Exception: whatever nibabel and SimpleITK raise for a damaged file.
    """
    if path.name.lower().endswith(ITK_SUFFIXES):
        reader = _itk_reader(path)
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise UnreadableInputError("it holds several values per voxel; save one gray value per voxel first.")
        return tuple(int(size) for size in reader.GetSize()), itk_affine(reader)
    image: Any = nib.freesurfer.mghformat.MGHImage.from_filename(path)
    return tuple(map(int, image.shape)), np.asarray(image.affine, dtype=np.float64)


def read_other(path: Path, index: int) -> npt.NDArray[np.float32]:
    """The voxels of one volume (X, Y, Z); arguments as checked by :func:`describe_other` before.

    Args:
        path: the file.
        index: which volume of a 4-D file, from 0.
    """
    if path.name.lower().endswith(ITK_SUFFIXES):
        import SimpleITK as sitk

        values = sitk.GetArrayFromImage(_itk_reader(path).Execute()).T
    else:
        loaded: Any = nib.freesurfer.mghformat.MGHImage.from_filename(path)
        values = np.asanyarray(loaded.dataobj)
    spatial = (*values.shape[:3], 1)[:3]
    flat = values.reshape(*spatial, math.prod(values.shape[3:]), order="F")
    return np.array(flat[..., index], dtype=np.float32, order="F")


def voxel_files(path: Path) -> tuple[Path, ...]:
    """The file beside a header in which its voxels are; none where they are in the file itself."""
    if path.suffix.lower() not in (".nhdr", ".mhd"):
        return ()
    names = [os.fsdecode(name.strip()) for name in _data_files(path)]
    return tuple(place for place in map(path.with_name, filter(None, map(os.path.basename, names))) if place.is_file())


def _data_files(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        return _DATA_FILE.findall(stream.read(_HEADER_BYTES).split(b"\n\n")[0])


def _itk_reader(path: Path) -> Any:
    import SimpleITK as sitk

    if any(re.search(rb"[/\\%]|^LIST", name) for name in _data_files(path)):
        raise UnreadableInputError("its voxels are in several files, or in another folder; save it as one file first.")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() in (".nrrd", ".nhdr") else "MetaImageIO")
    return reader


def itk_affine(image: Any) -> npt.NDArray[np.float64]:
    """(4, 4) matrix from voxel indices to RAS mm of a SimpleITK image or its reader, whose own places are in LPS.

    Only the first three axes are places.
    """
    count = image.GetDimension()
    directions = np.reshape(image.GetDirection(), (count, count))
    affine = np.eye(4)
    size = min(count, 3)
    affine[:size, :size] = (directions * np.asarray(image.GetSpacing()))[:size, :size]
    affine[:size, 3] = image.GetOrigin()[:size]
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
