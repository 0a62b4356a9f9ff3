# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Labels that annotators saved, brought to the grid of their image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage
from torch import Tensor

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.input_files import is_picture
from monai_anomalyclip.data.masks import read_mask
from monai_anomalyclip.data.other_volumes import itk_affine
from monai_anomalyclip.data.slicing import SliceView

__all__ = ["MAX_SLICES", "is_empty_label", "labelled_slices", "read_label", "representative_slices"]

_SAME_MM = 1e-3


def is_empty_label(path: str | os.PathLike[str]) -> bool:
    """Whether a label marks nothing, which is the label of a normal study.

    Args:
        path: NIfTI, NRRD, a picture, or the raw bytes (``.bin``) that the OHIF viewer sends.

    Raises:
        UnreadableInputError: it cannot be read.
    """
    if Path(path).suffix == ".bin":
        return not np.fromfile(path, dtype=np.uint8).any()
    return not _read(path)[0].any()


def read_label(path: str | os.PathLike[str], image: MetaTensor) -> Tensor:
    """Read a label as 0 and 1 on the grid of its image; every value but 0 is anomaly.

    A label of a volume may lie on another grid, such as that of a DICOM segmentation whose slices run the other way:
    each voxel of the image takes the value of the nearest voxel of the label in space.

    Args:
        path: NIfTI, NRRD, or a picture.
        image: the image that was labelled, as :func:`~monai_anomalyclip.label.reading.read_image` reads it.

    Returns:
        (1, H, W) or (1, X, Y, Z) float32.

    Raises:
        UnreadableInputError: it cannot be read, or it is no label of a picture of this size.
    """
    marked, affine = _read(path)  # columns first
    shape = tuple(int(size) for size in image.shape[1:])
    if len(shape) == 2:
        flat = marked.reshape(marked.shape[:2]) if marked.size == np.prod(marked.shape[:2]) else marked
        if flat.T.shape != shape:
            raise UnreadableInputError(
                f"The label {Path(path).name!r} is of {flat.shape} pixels, its picture of {shape[::-1]}."
            )
        return torch.from_numpy(np.ascontiguousarray(flat.T)[None].astype(np.float32))
    volume = marked.reshape(*marked.shape, *(1,) * (3 - marked.ndim))
    own = np.asarray(image.affine, dtype=np.float64)
    if volume.shape != shape or not np.allclose(affine, own, atol=_SAME_MM):
        to_label = np.linalg.inv(affine) @ own
        volume = ndimage.affine_transform(
            volume.astype(np.uint8),
            to_label[:3, :3],
            to_label[:3, 3],
            output_shape=shape,
            order=0,
            mode="grid-constant",
        )
    return torch.from_numpy(np.ascontiguousarray(volume)[None].astype(np.float32))


def _read(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """What is marked, columns first, and the affine to RAS mm."""
    name = Path(path).name
    try:
        if is_picture(path):
            return read_mask(path).T != 0, np.eye(4)
        values: npt.NDArray[Any]
        if name.lower().endswith((".nii", ".nii.gz")):  # ITK refuses sheared ones
            file = nib.loadsave.load(path)
            values, affine = np.asarray(file.dataobj), np.asarray(file.affine, dtype=np.float64)
            while values.ndim > 3 and values.shape[-1] == 1:
                values = values[..., 0]
        else:
            import SimpleITK as sitk  # large, and needed for these files alone

            image = sitk.ReadImage(str(path))
            values, affine = sitk.GetArrayFromImage(image), itk_affine(image)
            if image.GetNumberOfComponentsPerPixel() > 1:  # segments of their own
                values = np.asarray(values.any(axis=-1))
            values = values.transpose()
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        raise UnreadableInputError(f"Cannot read the label {name!r}: it is damaged or of an unknown kind.") from error
    if values.ndim not in (2, 3):
        raise UnreadableInputError(f"Cannot read the label {name!r}: it has {values.ndim} dimensions, not 2 or 3.")
    return values != 0, affine


MAX_SLICES = 24
"""Of a volume, as many slices with an anomaly are used at most."""


def labelled_slices(image: MetaTensor, label: Tensor, slice_axis: int | str = "auto") -> tuple[Tensor, Tensor]:
    """All slices of an image as inference shows them to the network, and their masks.

    Args:
        image: picture (C, H, W) or volume (C, X, Y, Z) with its affine.
        label: mask (1, H, W) or (1, X, Y, Z) on the image's grid.
        slice_axis: see :meth:`~monai_anomalyclip.data.slicing.SliceView.from_affine`.

    Returns:
        slices (N, C, H, W) and masks (N, 1, H, W); a picture is one slice.
    """
    if image.ndim == 3:
        return image.as_tensor()[None], label[None]
    if image.meta.get("native_slices"):
        view = SliceView.native(image.shape[1:])
    else:
        view = SliceView.from_affine(image.affine, image.shape[1:], slice_axis)
    return view.to_slices(image), view.to_slices(label)


def representative_slices(masks: Tensor, max_slices: int = MAX_SLICES) -> Tensor:
    """Numbers of the slices to tune on, in ascending order and evenly spread.

    At most `max_slices` slices with an anomaly and as many normal ones as of these; of a normal study, whose label is
    empty, `max_slices` in all.

    Args:
        masks: (N, 1, H, W), not 0 where there is an anomaly.
        max_slices: bound on time and memory.
    """
    marked = masks.flatten(1).bool().any(dim=1)
    anomalous, normal = marked.nonzero().flatten(), (~marked).nonzero().flatten()
    taken = _spread(anomalous, max_slices)
    rest = _spread(normal, len(taken) if len(taken) else max_slices)
    return torch.cat([taken, rest]).sort().values


def _spread(index: Tensor, count: int) -> Tensor:
    if len(index) <= count:
        return index
    return index[np.linspace(0, len(index) - 1, count).round().astype(int)]
