# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Images that are in memory already: read by the rules of their kind of file, and results handed back in the same kind.

| given | read as |
|---|---|
| NumPy (H, W), (H, W, 3), (H, W, 4) | picture: uint8, uint16 or in [0, 1]; (H, W) of other values: raw intensities |
| other NumPy (X, Y, Z) | volume of raw intensities, as a NIfTI file of the identity affine |
| tensor (H, W), (1 or 3, H, W), (1, X, Y, Z); MetaTensor | the same, channel first; a MetaTensor has its affine |
| PIL image | picture, by the rules of picture files |
| nibabel or SimpleITK image | volume with its affine; a 2-D colour or 8-bit image of SimpleITK is a picture |
| pydicom dataset, or several | the DICOM files they would be; they must be one series |
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image, ImageOps
from torch import Tensor

from monai_anomalyclip.data.deep_colour import scaled
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.frames import to_rgb
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.other_volumes import itk_affine
from monai_anomalyclip.data.sources import InputPart, ReadOptions, Source

__all__ = ["GivenImage", "given_image"]

_PICTURE_TYPES = (torch.uint8, torch.uint16)


@dataclass(frozen=True)
class GivenImage:
    """An image as the readers would have given it, and the way back to the kind that the caller gave.

    Attributes:
        parts: (C, H, W), (C, X, Y, Z), or the parts of a film in order; not scaled unless its reader does.
        given: the caller's object, which results are made like.
        source: the file or series, where there is one.
        folder: holds the files of DICOM datasets as long as this object lives.
    """

    parts: Sequence[MetaTensor | InputPart]
    given: Any
    source: Source | None = None
    folder: tempfile.TemporaryDirectory[str] | None = None

    def like_given(self, values: MetaTensor) -> Any:
        """A map or mask (1, H, W) or (1, X, Y, Z) as the caller's kind of object, in its geometry.

        Arrays and tensors come back without the channel that the caller's did not have; pictures of PIL as NumPy
        arrays (H, W); nibabel and SimpleITK images with the same affine; everything that was read from files as
        MetaTensor (1, ...).
        """
        given = self.given
        plain = values.as_tensor()
        if isinstance(given, np.ndarray | Image.Image):
            return plain[0].numpy()
        if isinstance(given, MetaTensor):
            return values if given.ndim > 2 else values[0]
        if isinstance(given, Tensor):
            return plain if given.ndim > 2 else plain[0]
        if _is_from(given, "nibabel"):
            header = given.header.copy()
            data = plain[0].numpy()
            data = data.astype(np.uint8) if data.dtype == bool else data
            header.set_data_dtype(data.dtype)
            return type(given)(data.reshape(given.shape), given.affine, header)
        if _is_from(given, "SimpleITK"):
            return _like_simpleitk(given, plain[0].numpy())
        return values


def given_image(value: Any, options: ReadOptions | Mapping[str, Any] | None = None) -> GivenImage:
    """Take an image, whatever it is; see the table in :mod:`monai_anomalyclip.data.in_memory`.

    Args:
        value: a path, a folder with one input, an item of a catalogue, or an image in memory.
        options: how files are read (see :class:`~monai_anomalyclip.data.ReadOptions`).

    Raises:
        UnreadableInputError: it is more than one input, or cannot be read.
        TypeError: it is no image.
        ValueError: its shape is not that of a picture or volume.
    """
    if isinstance(value, InputPart):
        return GivenImage([value], value, value.source)
    if isinstance(value, str | Path):
        return _from_path(value, value, options)
    if isinstance(value, Image.Image):
        pixels = to_rgb(ImageOps.exif_transpose(value), "the picture")
        return GivenImage([_picture(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())], value)
    if isinstance(value, Tensor):
        return GivenImage([_from_tensor(value)], value)
    if isinstance(value, np.ndarray):
        return GivenImage([_from_array(value)], value)
    if _is_from(value, "nibabel"):
        return GivenImage([_from_nibabel(value, options)], value)
    if _is_from(value, "SimpleITK"):
        return GivenImage([_from_simpleitk(value)], value)
    datasets = [value] if _is_from(value, "pydicom") else value
    if isinstance(datasets, Sequence) and datasets and all(_is_from(one, "pydicom") for one in datasets):
        return _from_datasets(datasets, value, options)
    raise TypeError(
        f"A {type(value).__name__} is no image: give a path, a NumPy array, a tensor, or an image of PIL, nibabel, "
        "SimpleITK or pydicom."
    )


def _is_from(value: Any, library: str) -> bool:
    """Whether an object is of a library, or derived from what is; the library is not imported for that."""
    if library not in sys.modules:
        return False
    modules = [kind.__module__.split(".")[0] for kind in type(value).__mro__]
    return library in modules


def _from_path(path: str | Path, given: Any, options: ReadOptions | Mapping[str, Any] | None) -> GivenImage:
    source, *others = InputCatalogue(path, options=options).sources.values()
    if others:
        raise UnreadableInputError(
            f"{Path(path).name!r} holds {1 + len(others)} inputs: give one of them, or use `predict` for all."
        )
    return GivenImage([InputPart(source, *part) for part in source.parts()], given, source)


def _picture(channels_first: Tensor) -> MetaTensor:
    meta = {
        "kind": "frame",
        "spatial_shape": np.asarray(channels_first.shape[1:]),
        "original_affine": np.eye(4),
    }
    return MetaTensor(channels_first, affine=torch.eye(4, dtype=torch.float64), meta=meta)


def _volume(values: Tensor, affine: npt.NDArray[np.float64] | Tensor) -> MetaTensor:
    """A volume (1, X, Y, Z) of raw intensities."""
    matrix = torch.as_tensor(affine, dtype=torch.float64)
    meta = {
        "kind": "volume",
        "spatial_shape": np.asarray(values.shape[1:]),
        "original_affine": matrix.numpy().copy(),
    }
    return MetaTensor(values.to(torch.float32), affine=matrix, meta=meta)


def _has_picture_values(values: Tensor) -> bool:
    """Whether they are of a type that pictures are stored in, or already in [0, 1]."""
    if not values.is_floating_point():
        return values.dtype in _PICTURE_TYPES
    low, high = float(values.amin()), float(values.amax())
    return low >= 0 and high <= 1


def _raw_or_picture(channels_first: Tensor) -> MetaTensor:
    """A picture (C, H, W); other intensities than pictures have are those of a volume of one slice."""
    if channels_first.dtype == torch.uint16:  # which white 16 bits stand for is told as of files
        values = channels_first.numpy()
        channels_first = torch.from_numpy(scaled(values, int(values.max(initial=0))))
    if channels_first.dtype == torch.uint8:
        return _picture(channels_first)
    image = _picture(channels_first.to(torch.float32))
    if _has_picture_values(channels_first):
        image.meta["intensity"] = '{"preset": "none"}'
    elif len(channels_first) == 3:
        raise ValueError("Colours must be uint8, uint16 or float in [0, 1]: scale the picture first.")
    return image


def _from_array(array: npt.NDArray[Any]) -> MetaTensor:
    values = torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
    if array.ndim == 2:
        return _raw_or_picture(values[None])
    if array.ndim == 3 and array.shape[2] in (3, 4) and _has_picture_values(values):
        return _raw_or_picture(values[..., :3].permute(2, 0, 1).contiguous())
    if array.ndim == 3:
        return _volume(values[None], np.eye(4))
    raise ValueError(
        f"An array of shape {array.shape} is neither a picture (H, W), (H, W, 3) nor a volume (X, Y, Z): give one "
        "image at a time."
    )


def _from_tensor(tensor: Tensor) -> MetaTensor:
    plain = (tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor).detach().cpu()
    record = tensor.meta.get("intensity") if isinstance(tensor, MetaTensor) else None
    if plain.ndim == 2:
        plain = plain[None]
    if plain.ndim == 3 and len(plain) in (1, 3):
        image = _raw_or_picture(plain)
    elif (plain.ndim == 4 and len(plain) == 1) or (plain.ndim == 4 and record):
        affine = tensor.affine.cpu() if isinstance(tensor, MetaTensor) else np.eye(4)
        image = _volume(plain, affine)
    else:
        raise ValueError(
            f"A tensor of shape {tuple(tensor.shape)} is neither a picture (1 or 3, H, W) nor a volume (1, X, Y, Z): "
            "put the channel first and give one image at a time."
        )
    if isinstance(tensor, MetaTensor):  # what a reader has said of it goes on to hold
        image.meta = {**image.meta, **{key: tensor.meta[key] for key in _KEPT if key in tensor.meta}}
    return image


_KEPT = ("kind", "modality", "patient", "intensity", "notes", "native_slices")


def _from_nibabel(image: Any, options: ReadOptions | Mapping[str, Any] | None) -> MetaTensor:
    import nibabel as nib

    kind = nib.Nifti2Image if isinstance(image, nib.Nifti2Image) else nib.Nifti1Image
    header = image.header if isinstance(image, nib.Nifti1Image) else None
    copy = kind(np.asarray(image.dataobj, np.float32), None if header else image.affine, header)
    copy.set_data_dtype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        nib.save(copy, path)
        part = _from_path(path, image, options).parts[0]
        assert isinstance(part, InputPart)
        return part.load()


def _from_simpleitk(image: Any) -> MetaTensor:
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    colour = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetDimension() == 2:
        return _from_array(array)
    if image.GetDimension() != 3 or colour:
        raise ValueError(
            f"An image of {image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} components is "
            "neither a picture nor a volume of one value per voxel: give one image at a time."
        )
    return _volume(torch.from_numpy(array.T.astype(np.float32))[None], itk_affine(image))


def _like_simpleitk(given: Any, values: npt.NDArray[Any]) -> Any:
    import SimpleITK as sitk

    values = values.astype(np.uint8) if values.dtype == bool else values
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T if given.GetDimension() == 3 else values))
    image.CopyInformation(given)
    return image


def _from_datasets(datasets: Sequence[Any], given: Any, options: ReadOptions | Mapping[str, Any] | None) -> GivenImage:
    """Datasets as the files they would be: one reader for all. The folder is private and goes with the result."""
    from pydicom import dcmwrite

    folder = tempfile.TemporaryDirectory()
    for number, dataset in enumerate(datasets):
        dcmwrite(Path(folder.name) / f"{number:06d}.dcm", dataset, enforce_file_format=True)
    found = _from_path(folder.name, given, options)
    return GivenImage(found.parts, given, found.source, folder)
