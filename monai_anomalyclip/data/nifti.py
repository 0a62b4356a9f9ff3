# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Read NIfTI volumes: sizes before data, scaling applied, doubtful geometry refused or named."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.input_files import OTHER_SUFFIXES
from monai_anomalyclip.data.nifti_form import NIFTI_FORMS, BoundedFile, choose_affine
from monai_anomalyclip.data.other_volumes import describe_other, read_other, voxel_files

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

__all__ = [
    "NiftiVolume",
    "describe_volume",
    "files_of_volume",
    "load_volume",
    "nifti_header",
    "read_volume",
]

MAX_VOXELS = 2**29
"""Volumes of more voxels are refused before anything is inflated (2 GiB as float32)."""

_PAIRED = (".img", ".IMG", ".img.gz")  # where the voxels of a .hdr file are
_MAX_HEADER = 2**26  # bytes before the data; extensions of a volume are far smaller
_MAX_INFLATED = 2**36  # bytes up to the end of the chosen time point; those before it are inflated, but not kept
_BLOCK = 2**22  # voxels that are converted at a time


class NiftiVolume(NamedTuple):
    """What :func:`read_volume` returns.

    Attributes:
        data: (X, Y, Z) float32, in the file's voxel order, slope and intercept applied.
        affine: (4, 4) float64, voxel index to mm in RAS.
        notes: one sentence for each thing in the file that a reader of the result should know.
    """

    data: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    notes: tuple[str, ...]


def files_of_volume(path: Path) -> tuple[Path, ...]:
    """A volume's file, and after it that of its voxels where they are in a file of their own."""
    if path.suffix.lower() == ".hdr":
        return (path, *[place for place in map(path.with_suffix, _PAIRED) if place.is_file()][:1])
    return (path, *voxel_files(path))


def read_volume(
    path: str | os.PathLike[str],
    *,
    form: str = "refuse",
    time_point: int | None = None,
    only_if_4d: bool = False,
    max_voxels: int = MAX_VOXELS,
) -> NiftiVolume:
    """Read a 3-D volume from NIfTI-1 or NIfTI-2 (either byte order, .nii or .nii.gz).

    Trailing axes of length 1 are dropped; a 2-D image is a volume of one slice. The affine is the sform if its code is
    set, else the qform, else nibabel's fallback from the voxel sizes. No more is read than the header describes, and
    what is held is the float32 result and a block of 4 million voxels. Notes name: two forms that disagree, the
    absence of both, and voxels that are not finite (left as they are here; later steps take them as background).

    Args:
        path: the file.
        form: what to do when sform and qform put a corner of the volume at places that differ by more than rounding
            explains, or when the sform's voxel sizes are not those of the header: ``"refuse"`` the file, or use
            ``"sform"`` or ``"qform"``, which must then be set.
        time_point: which volume of a 4-D file, from 0; None refuses 4-D files.
        only_if_4d: read a file of one volume whatever the time point, with a note, instead of refusing it.
        max_voxels: volumes of more voxels are refused.

    Raises:
        UnreadableInputError: the file is missing, truncated, damaged, too large, complex, RGB, 4-D without a time
            point, of more dimensions, without a usable affine, inflates to more than its header says, or holds no
            finite voxel.
        ValueError: there is no such `form`.
    """
    if form not in NIFTI_FORMS:
        raise ValueError(f"The NIfTI form must be one of {', '.join(NIFTI_FORMS)}, got {form!r}.")
    name = Path(path).name
    if _is_other(path):
        with _named_errors(path):
            sizes, affine = describe_other(Path(path))
            shape, index, _, notes = _choose(sizes, time_point, only_if_4d, max_voxels)
            data = read_other(Path(path), index)
            bad = data.size - int(np.isfinite(data).sum())
    else:
        with _opened(path) as stream:
            header = _read_header(stream)
            shape, index, count, ignored = _choose(header.get_data_shape(), time_point, only_if_4d, max_voxels)
            affine, notes = choose_affine(header, shape, form)
            notes += ignored
            with _voxels_of(path, header, stream) as (voxels, least):
                data, bad = _read_voxels(voxels, header, shape, index, least)
                if index == count - 1:
                    voxels.check_end()
    if bad == data.size:
        raise UnreadableInputError(f"Cannot read {name!r}: none of its {data.size} voxels is a finite number.")
    if bad:
        notes.append(f"{bad} of {data.size} voxels are NaN or infinite and taken as background.")
    return NiftiVolume(data, affine, tuple(notes))


def describe_volume(
    path: str | os.PathLike[str],
    *,
    form: str = "refuse",
    time_point: int | None = None,
    only_if_4d: bool = False,
    max_voxels: int = MAX_VOXELS,
) -> tuple[tuple[int, int, int], npt.NDArray[np.float64], tuple[str, ...]]:
    """What :func:`read_volume` would find in the header: shape (X, Y, Z), affine and notes. No voxel is read.

    Raises:
        UnreadableInputError: as for :func:`read_volume`, as far as the header tells.
    """
    if _is_other(path):
        with _named_errors(path):
            sizes, affine = describe_other(Path(path))
            shape, _, _, ignored = _choose(sizes, time_point, only_if_4d, max_voxels)
        return shape, affine, tuple(ignored)
    with _opened(path) as stream:
        header = _read_header(stream)
        shape, _, _, ignored = _choose(header.get_data_shape(), time_point, only_if_4d, max_voxels)
        affine, notes = choose_affine(header, shape, form)
        notes += ignored
    return shape, affine, tuple(notes)


def load_volume(
    path: str | os.PathLike[str],
    *,
    form: str = "refuse",
    time_point: int | None = None,
    only_if_4d: bool = False,
    max_voxels: int = MAX_VOXELS,
) -> MetaTensor:
    """Read a NIfTI volume as MetaTensor (1, X, Y, Z) float32, raw intensities, with its RAS affine.

    Meta ``kind`` is ``"volume"`` and ``notes`` a string of :class:`NiftiVolume`'s notes (empty when there are none),
    each of which is also raised as a Python warning.

    Args:
        path: the file.
        form: as for :func:`read_volume`.
        time_point: as for :func:`read_volume`.
        only_if_4d: as for :func:`read_volume`.
        max_voxels: as for :func:`read_volume`.

    Raises:
        UnreadableInputError: as for :func:`read_volume`.
        ValueError: there is no such `form`.
    """
    import torch
    from monai.data.meta_tensor import MetaTensor  # takes seconds, which headers alone do not need

    volume = read_volume(path, form=form, time_point=time_point, only_if_4d=only_if_4d, max_voxels=max_voxels)
    for note in volume.notes:
        warnings.warn(note, stacklevel=2)
    affine = torch.from_numpy(volume.affine)
    meta = {
        "filename_or_obj": str(path),
        "kind": "volume",
        "spatial_shape": np.asarray(volume.data.shape),
        "original_affine": volume.affine.copy(),
        "notes": " ".join(volume.notes),
    }
    return MetaTensor(torch.from_numpy(volume.data)[None], affine=affine, meta=meta)


def nifti_header(path: str | os.PathLike[str]) -> Any:
    """nibabel's NIfTI-1 or NIfTI-2 header of a file, as of one without extensions; None for a volume of another kind.

    Raises:
        UnreadableInputError: as for :func:`read_volume`, as far as the header tells.
    """
    if _is_other(path):
        return None
    with _opened(path) as stream:
        header = _read_header(stream)
    header.set_data_offset(0)
    return header


def _is_other(path: str | os.PathLike[str]) -> bool:
    return Path(path).name.lower().endswith(OTHER_SUFFIXES)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BoundedFile]:
    """Open a file, and name it in the error when it cannot be read."""
    with _named_errors(path), BoundedFile.open(path) as stream:
        yield stream


@contextmanager
def _voxels_of(path: str | os.PathLike[str], header: Any, stream: BoundedFile) -> Iterator[tuple[BoundedFile, int]]:
    """The file with the voxels, and the first byte at which they may begin."""
    if not bytes(header["magic"]).startswith(b"ni"):
        # Writers that leave the offset 0 mean the first byte after the header and its four bytes of extension flags.
        yield stream, header.sizeof_hdr + 4
        return
    files = files_of_volume(Path(path))
    if len(files) == 1:
        raise UnreadableInputError("its voxels are in a separate .img file, which is not beside it.")
    with BoundedFile.open(files[1]) as voxels:
        yield voxels, 0


@contextmanager
def _named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn every error within the block into one sentence that names the file, never its folder."""
    name = Path(path).name
    if not Path(path).is_file():
        raise UnreadableInputError(f"Cannot read {name!r}: there is no such file.")
    try:
        yield
    except UnreadableInputError as error:
        raise UnreadableInputError(f"Cannot read {name!r}: {error}") from error
    except PermissionError as error:
        raise UnreadableInputError(f"Cannot read {name!r}: you have no permission to read it.") from error
    except MemoryError as error:
        raise UnreadableInputError(f"Cannot read {name!r}: there is not enough memory for it.") from error
    except Exception as error:  # a damaged file makes nibabel, ITK, gzip and numpy raise nearly anything
        # ITK's messages are many lines, and quote the path.
        reason = type(error).__name__ if "itk::" in str(error) else str(error).replace(str(path), name)
        reason = reason or type(error).__name__
        raise UnreadableInputError(f"Cannot read {name!r}: the file is truncated or damaged ({reason}).") from error


def _read_header(stream: BoundedFile) -> Any:
    block = b""
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        block += stream.read(kind.sizeof_hdr - len(block))
        if kind.may_contain_header(block):
            header = kind(block, check=False)
            break
    else:
        if block[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):  # 348, the size of the header
            raise UnreadableInputError(
                "it is Analyze 7.5, which does not say which side is left; convert it to NIfTI first."
            )
        raise UnreadableInputError("its content is not NIfTI.")
    try:
        dtype = header.get_data_dtype()
    except KeyError as error:
        raise UnreadableInputError(f"its header names the unknown data type {int(header['datatype'])}.") from error
    if dtype.kind == "c":
        raise UnreadableInputError("it holds complex numbers; save the magnitude as a real volume first.")
    if dtype.kind not in "iuf":
        raise UnreadableInputError("it holds RGB colours; save one gray value per voxel first.")
    return header


def _choose(
    sizes: Sequence[int], time_point: int | None, only_if_4d: bool, max_voxels: int
) -> tuple[tuple[int, int, int], int, int, list[str]]:
    """The shape of the volume, its number in the file, how many there are, and a note if that is not what was asked."""
    shape = tuple(int(size) for size in sizes)
    if not shape or min(shape) < 1:
        raise UnreadableInputError(f"its header claims the shape {shape}.")
    count = math.prod(shape[3:])
    if math.prod(shape[4:]) > 1 and shape[3] == 1 and shape[4] in (3, 4):
        raise UnreadableInputError(
            f"it holds {shape[4]} values per voxel (shape {shape}), colours or a vector; save one gray value per voxel "
            "first."
        )
    if math.prod(shape[4:]) > 1:
        raise UnreadableInputError(
            f"it has {len(shape)} dimensions {shape}; only 3-D volumes and 4-D ones with a time point are supported, "
            "save each volume as its own file."
        )
    if count > 1 and time_point is None:
        raise UnreadableInputError(
            f"it has 4 dimensions {shape[:4]}, {count} time points; choose one with the option time_point "
            f"(0 to {count - 1})."
        )
    index, notes = time_point or 0, []
    if only_if_4d and count == 1 and index:
        notes.append(f"The file holds one volume: the time point {index} is meant for others.")
        index = 0
    if not 0 <= index < count:
        raise UnreadableInputError(f"it has no time point {index}; those of its shape {shape} are 0 to {count - 1}.")
    x, y, z = (*shape[:3], *(1,) * (3 - len(shape)))[:3]
    if x * y * z > max_voxels:
        raise UnreadableInputError(f"its {x} x {y} x {z} voxels are more than the allowed {max_voxels:,}.")
    return (x, y, z), index, count, notes


def _read_voxels(
    stream: BoundedFile, header: Any, shape: tuple[int, int, int], index: int, least: int
) -> tuple[npt.NDArray[np.float32], int]:
    """The voxels of one volume (X, Y, Z), and how many of them are not finite."""
    dtype = header.get_data_dtype()
    size = math.prod(shape) * dtype.itemsize
    offset = float(header["vox_offset"])
    if not 0 <= offset <= _MAX_HEADER:
        raise UnreadableInputError(f"its header claims that the data begins at byte {offset:.0f}.")
    start = max(int(offset), least) + index * size
    if stream.size is not None and stream.size < start + size:
        raise UnreadableInputError(f"the file is truncated ({stream.size} of {start + size} bytes).")
    if start + size > _MAX_INFLATED:
        raise UnreadableInputError(f"{start + size:,} bytes would have to be read; save the volume as its own file.")
    stream.skip_to(start)
    slope, intercept = header.get_slope_inter()  # None where the header gives none (slope 0 or NaN)
    data = np.empty(shape, np.float32)
    bad = 0
    for part in _parts(shape):
        block = data[part]
        stored = np.frombuffer(stream.read_exactly(block.size * dtype.itemsize), dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored if slope is None else stored * np.float64(slope) + np.float64(intercept or 0)
            block[...] = values.reshape(block.shape, order="F")
        bad += block.size - int(np.isfinite(block).sum())
    return data, bad


def _parts(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a volume into blocks whose voxels follow each other in the file."""
    x, y, z = shape
    rows = min(y, max(1, _BLOCK // x))
    slices = max(1, _BLOCK // (x * y)) if rows == y else 1
    for first in range(0, z, slices):
        for row in range(0, y, rows):
            yield slice(None), slice(row, row + rows), slice(first, first + slices)
