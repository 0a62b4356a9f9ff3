# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Where voxels lie in mm (LPS) and what they hold, by pydicom, highdicom, dcmqi, SimpleITK and nibabel alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from scipy.spatial import cKDTree

__all__ = ["Voxels", "distance", "of_dicom", "of_itk", "of_nibabel", "of_parametric_map", "of_segmentation"]


class Voxels(NamedTuple):
    """Places (n, 3) in mm, LPS, and values (n,)."""

    places: np.ndarray
    values: np.ndarray

    def where(self, chosen: np.ndarray) -> np.ndarray:
        """The places of some."""
        return self.places[chosen]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Greatest distance in mm of a place from its nearest place in the other set; infinite for sets of unequal size."""
    if len(found) != len(expected) or not len(found):
        return float("inf")
    return float(max(cKDTree(expected).query(found)[0].max(), cKDTree(found).query(expected)[0].max()))


def of_dicom(path: Path) -> Iterator[tuple[str, Voxels]]:
    """The frames of an image with its identity: UID and frame number; values are rescaled."""
    image = pydicom.dcmread(path)
    frames = image.pixel_array.reshape(-1, image.Rows, image.Columns)
    for index, frame in enumerate(frames):
        functional = _functional(image, index)
        values = frame * float(functional.RescaleSlope) + float(functional.RescaleIntercept)
        yield f"{image.SOPInstanceUID}/{index + 1}", Voxels(_plane(functional, *frame.shape), values.ravel())


def of_segmentation(path: Path) -> list[Voxels]:
    """The frames of a segmentation that highdicom reads."""
    return _frames(hd.seg.segread(path), None)


def of_parametric_map(path: Path) -> list[Voxels]:
    """The frames of a parametric map that highdicom reads, with the real world values."""
    image = hd.pm.ParametricMap.from_file(path)
    return _frames(image, image.get_frames(apply_real_world_transform=True))


def of_itk(path: Path) -> Voxels:
    """A volume that SimpleITK reads: NRRD that dcmqi wrote, or NIfTI."""
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    indices = np.argwhere(np.ones(values.shape, bool))[:, ::-1]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    places = np.array(image.GetOrigin()) + (indices * np.array(image.GetSpacing())) @ direction.T
    return Voxels(places, values.ravel())


def of_nibabel(path: Path) -> Voxels:
    """A NIfTI volume that nibabel reads."""
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    indices = np.argwhere(np.ones(values.shape, bool))
    places = nib.affines.apply_affine(image.affine, indices) * np.array([-1, -1, 1])
    return Voxels(places, values.ravel())


def _frames(image: Dataset, values: np.ndarray | None) -> list[Voxels]:
    frames = (image.pixel_array if values is None else values).reshape(-1, image.Rows, image.Columns)
    return [
        Voxels(_plane(_functional(image, index), *frame.shape), frame.ravel()) for index, frame in enumerate(frames)
    ]


def _functional(image: Dataset, index: int) -> Dataset:
    """Orientation, position, spacing and rescale of a frame, wherever they stand."""
    result = Dataset()
    result.update({element.tag: element for element in image if element.VR != "SQ" and element.tag.group != 0x7FE0})
    for groups in (image.get("SharedFunctionalGroupsSequence"), image.get("PerFrameFunctionalGroupsSequence")):
        for sequence in [] if not groups else groups[index if len(groups) > 1 else 0]:
            if sequence.VR == "SQ" and len(sequence.value) == 1:
                result.update(dict(sequence.value[0].items()))
    return result


def _plane(header: Dataset, rows: int, columns: int) -> np.ndarray:
    """(rows * columns, 3), by DICOM PS3.3 equation C.7.6.2.1-1."""
    row, column = np.indices((rows, columns))
    cosines = np.array(header.ImageOrientationPatient, float)
    down, across = map(float, header.PixelSpacing)
    places = (column[..., None] * across) * cosines[:3] + (row[..., None] * down) * cosines[3:]
    return (places + np.array(header.ImagePositionPatient, float)).reshape(-1, 3)
