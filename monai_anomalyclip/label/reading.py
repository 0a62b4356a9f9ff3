# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read the images of a MONAI Label server with the package's own readers, and lay them where its clients expect them.

Pictures, NIfTI volumes and DICOM come from :func:`~monai_anomalyclip.data.load_input`, so that the network sees here
what it sees in ``predict``. MONAI Label makes a NIfTI volume of each DICOM series of an archive, with SimpleITK; it
keeps the series beside it, and its viewers and its DICOM segmentation writer expect results on the volume's grid. Such
a volume is therefore read from its series, and laid on its own grid.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import torch
from monai.data.meta_tensor import MetaTensor
from pydicom.uid import UncompressedTransferSyntaxes

from monai_anomalyclip.data.dicom.reader import stack_affine
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.input_files import is_nifti, is_picture
from monai_anomalyclip.data.inputs import InputCatalogue, load_input
from monai_anomalyclip.data.sources import DicomSource, InputPart, ReadOptions, Source
from monai_anomalyclip.transforms.intensity import ScaleIntensityForCLIP

__all__ = ["read_image"]

_PARALLEL = 0.999  # cosine between axes of the same direction
_SAME_PLACE = 0.5  # voxels

logger = logging.getLogger(__name__)


def read_image(path: str | os.PathLike[str], preset: str = "auto") -> MetaTensor:
    """Read an image as float32 in [0, 1].

    Args:
        path: a picture, a NIfTI, NRRD or MetaImage volume, a DICOM file, or a folder with one DICOM series.
        preset: intensity preset (see :mod:`monai_anomalyclip.transforms.intensity_presets`).

    Returns:
        (3, H, W) for a picture, (1, X, Y, Z) for gray, (3, X, Y, Z) for colour. Slices of DICOM are those along Z,
        shown as stored; the affine is that of MONAI Label's own volume of the series where there is one.

    Raises:
        UnreadableInputError: it cannot be read, or has no window of its own where the preset asks for it.
        ValueError: there is no such preset.

    Example::

        read_image("studies/brain_00.nii.gz").shape  # (1, 160, 160, 20)
    """
    file, options = Path(path), ReadOptions(preset=preset)
    name = file.name.lower()
    if not file.exists():
        raise UnreadableInputError(f"Cannot read {file.name!r}: there is no such file.")
    if suffix := next((suffix for suffix in (".nii", ".nii.gz") if name.endswith(suffix)), ""):
        series = file.with_name(file.name[: -len(suffix)])
        laid = _series_on_the_grid_of(file, series, options) if series.is_dir() else _colour_nifti(file)
        return load_input(file, options) if laid is None else laid
    return load_input(file, options) if is_picture(file) or is_nifti(file) else _read_series(file, options)


def _read_series(path: Path, options: ReadOptions) -> MetaTensor:
    """The one DICOM stack of a file or folder, also one that ``predict`` leaves out unless it is named, as a volume."""
    catalogue = InputCatalogue(path, options=options, empty=True)
    sources: list[Source] = list(catalogue.sources.values())
    sources = sources or [DicomSource(series, options) for series in catalogue.excluded]
    if not sources:
        details = [file.detail for file in catalogue.skipped if file.detail]
        raise UnreadableInputError(
            f"Cannot read {path.name!r}: {details[0] if len(details) == 1 else 'it holds no image.'}"
        )
    if len(sources) > 1:
        raise UnreadableInputError(f"{path.name!r} holds {len(sources)} inputs: give the file or folder of one.")
    source = sources[0]
    if not isinstance(source, DicomSource):
        return InputPart(source).load()
    if _needs_decompression(source):
        with tempfile.TemporaryDirectory() as folder:
            for number, file in enumerate(source.paths):
                _decompress(file, Path(folder) / f"{number}.dcm")
            return _read_series(Path(folder), options)
    image = InputPart(source).load()
    if image.ndim == 4:
        return image
    affine = stack_affine(source.series.geometry)  # a picture: its pixel spacing is all that it has
    return _laid(image.permute(0, 2, 1)[..., None], affine, {**image.meta, "kind": "volume", "native_slices": 1})


def _series_on_the_grid_of(volume: Path, folder: Path, options: ReadOptions) -> MetaTensor | None:
    """The series in a folder, on the grid of MONAI Label's volume of it; None where they do not belong together."""
    try:
        image = _read_series(folder, options)
        header: Any = nib.loadsave.load(volume)
        shape, affine = tuple(header.shape[:3]), np.asarray(header.affine, dtype=np.float64)
    except UnreadableInputError:
        logger.warning("The folder beside a volume holds no single DICOM series: the volume is read as it is.")
        return None
    except Exception:  # of a damaged volume; its reader says what is wrong
        return None
    own = np.asarray(image.affine, dtype=np.float64)
    shape += (1,) * (3 - len(shape))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = (own[:3, :3] * affine[:3, :3]).sum(axis=0) / np.linalg.norm(own[:3, :3], axis=0) / spacing
    backwards = cosines[2] < 0
    first = own @ [0, 0, image.shape[3] - 1 if backwards else 0, 1]
    if (
        tuple(image.shape[1:]) != shape
        or not (cosines * [1, 1, -1 if backwards else 1] > _PARALLEL).all()
        or np.abs(first - affine[:, 3]).max() > _SAME_PLACE * spacing.min()
    ):
        logger.warning("The DICOM series beside a volume lies on another grid: the volume is read as it is.")
        return None
    return _laid(image.flip(3) if backwards else image, affine, image.meta)


def _colour_nifti(path: Path) -> MetaTensor | None:
    """A NIfTI of colours, as MONAI Label makes it of an RGB series, without that series; None for any other."""
    try:
        file: Any = nib.loadsave.load(path)
        if file.get_data_dtype().fields:
            structured = np.asarray(file.dataobj)
            values = np.stack([structured[channel] for channel in ("R", "G", "B")], axis=-1)
        elif len(file.shape) == 5 and file.shape[3:] == (1, 3):
            values = np.asarray(file.dataobj)[:, :, :, 0]
        else:
            return None
    except Exception:  # the reader of gray volumes says what is wrong
        return None
    if values.min() < 0 or values.max() > 255:
        raise UnreadableInputError(f"Cannot read {path.name!r}: colours must lie in 0..255; save them as 8-bit.")
    while values.ndim < 4:
        values = values[..., None, :]
    pixels = torch.from_numpy(np.moveaxis(values, -1, 0).astype(np.uint8))
    meta = {"kind": "volume", "native_slices": 1}
    scaled = ScaleIntensityForCLIP()(_laid(pixels, np.asarray(file.affine, np.float64), meta))
    assert isinstance(scaled, MetaTensor)
    return scaled


def _laid(image: torch.Tensor, affine: npt.NDArray[np.float64], meta: dict[str, Any]) -> MetaTensor:
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    meta = {**meta, "original_affine": affine.copy(), "spatial_shape": np.asarray(plain.shape[1:])}
    meta.pop("affine", None)
    return MetaTensor(plain.contiguous(), affine=torch.from_numpy(affine), meta=meta)


def _needs_decompression(source: DicomSource) -> bool:
    """pydicom 2.4, which MONAI Label 0.8.5 needs, has none of the decoders that the package uses elsewhere."""
    native = set(UncompressedTransferSyntaxes)
    old = int(pydicom.__version__.split(".")[0]) < 3
    return old and any(instance.transfer_syntax not in native for instance in source.series.instances)


def _decompress(source: Path, target: Path) -> None:
    """Write a DICOM file again without compression, by GDCM."""
    import gdcm  # slow to import, and only compressed files need it

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    if reader.Read():
        change.SetInput(reader.GetImage())
        if change.Change():
            writer.SetFileName(str(target))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            if writer.Write():
                return
    raise UnreadableInputError("Cannot read a DICOM series: GDCM cannot decompress it.")
