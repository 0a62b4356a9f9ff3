# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which of a NIfTI file's two affines counts, and whether they contradict each other."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["NIFTI_FORMS", "NO_FORM", "BoundedFile", "choose_affine", "distance_apart"]

_GZIP = b"\x1f\x8b"
_PIECE = 2**20
_PADDING = 2**20  # what may follow the data; writers pad at most to a block


class BoundedFile:
    """A file, plain or gzip, of which exactly the bytes that are asked for are read or inflated. Only goes forward.

    Args:
        stream: gives the (inflated) bytes.
        size: of a plain file; None for a compressed one, whose inflated size nothing tells before it is read.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, size: int | None) -> None:
        self._stream = stream
        self.size = size
        self.position = 0

    @classmethod
    @contextmanager
    def open(cls, path: str | os.PathLike[str]) -> Iterator[BoundedFile]:
        """Open a file; one that begins like gzip is inflated, whatever its name."""
        with open(path, "rb") as beginning:
            compressed = beginning.read(2) == _GZIP
        if compressed:
            with gzip.open(path, "rb") as inflated:
                yield cls(inflated, None)
        else:
            with open(path, "rb") as plain:
                yield cls(plain, os.fstat(plain.fileno()).st_size)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer only where the file ends."""
        block = self._stream.read(size)
        self.position += len(block)
        return block

    def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes.

        Raises:
            UnreadableInputError: the file ends before.
        """
        block = self.read(size)
        if len(block) < size:
            raise UnreadableInputError(
                f"the file is truncated: it ends after {self.position} bytes, {size - len(block)} too early."
            )
        return block

    def skip_to(self, position: int) -> None:
        """Go forward; what lies between is inflated in small pieces, none of which is kept.

        Raises:
            UnreadableInputError: the file ends before.
        """
        while self.position < position:
            self.read_exactly(min(_PIECE, position - self.position))

    def check_end(self) -> None:
        """Refuse a compressed file that goes on for long: its header then does not describe it.

        Reading up to the end also makes gzip compare the checksum.

        Raises:
            UnreadableInputError: more than a mebibyte follows.
        """
        if self.size is None and len(self.read(_PADDING + 1)) > _PADDING:
            raise UnreadableInputError(
                f"it inflates to more than the {self.position - _PADDING - 1} bytes that its header claims."
            )


NIFTI_FORMS = ("refuse", "sform", "qform")
"""What can be done when the sform and the qform of a file disagree."""

NO_FORM = "The file has neither sform nor qform: which side is left, and the position, are assumed."
"""The note on a file whose affine is only assumed."""

_SAME_POSITION = 0.1  # voxels by which the corners of the volume may differ between two affines that agree
# Three float32 components fix the quaternion of a qform. Near half turns, as of every scan stored in DICOM's axes, its
# rotation then errs by up to 1.2e-3 radians (greatest of 9000 random orientations).
_QUATERNION_ROUNDING = 1.5e-3
_SAME_SPACING = 0.01  # relative; pixdim is often rounded to two or three digits


def choose_affine(header: Any, shape: tuple[int, int, int], form: str) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The affine of a file, and notes on it.

    Two forms agree when no corner of the volume lies further apart than a tenth of a voxel and what rounding of the
    qform's quaternion explains; the sform agrees with the voxel sizes when they are equal within one per cent.

    Args:
        header: nibabel's NIfTI-1 or NIfTI-2 header.
        shape: (X, Y, Z) of the volume.
        form: one of :data:`NIFTI_FORMS`; without a conflict ``"refuse"`` means the sform if its code is set, else the
            qform, else nibabel's fallback from the voxel sizes.

    Returns:
        (4, 4) voxel index to mm in RAS, and a sentence for each thing that is doubtful.

    Raises:
        UnreadableInputError: the two forms, or the sform and the voxel sizes, disagree and `form` is ``"refuse"``; the
            form that is asked for is not set; the affine is not invertible.
    """
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError) as error:
        if form != "sform" or sform is None:  # asked for the sform, a meaningless qform is no obstacle
            raise UnreadableInputError("the quaternion of its qform is no rotation.") from error
        qform = None
    if sform is None and qform is None:
        return _usable(header.get_best_affine()), [NO_FORM]
    chosen = {"sform": sform, "qform": qform}.get(form, qform if sform is None else sform)
    if chosen is None:
        other = "sform" if form == "qform" else "qform"
        raise UnreadableInputError(f"it has no {form}; leave the option nifti_form out, or use nifti_form {other}.")
    affine = _usable(chosen)
    difference = _difference(header, shape, sform, qform)
    if difference and form == "refuse":
        ways = "nifti_form sform" if qform is None else "nifti_form sform or nifti_form qform"
        raise UnreadableInputError(f"{difference}; say which counts with the option {ways}.")
    return affine, [f"In this file {difference}; the {form} is used, as asked."] if difference else []


def distance_apart(first: npt.NDArray[Any], second: npt.NDArray[Any], shape: tuple[int, ...]) -> float:
    """How far in mm a corner of a volume lies apart by two affines; 0 where rounding explains it.

    Args:
        first: (4, 4) voxel index to mm.
        second: (4, 4); its voxel sizes, and the distances from its voxel 0, say what rounding explains.
        shape: (X, Y, Z) of the volume.
    """
    corners = np.array(list(np.ndindex(2, 2, 2)), dtype=np.float64) * (np.array(shape, dtype=np.float64) - 1)
    moved = np.linalg.norm(corners @ (first - second)[:3, :3].T + (first - second)[:3, 3], axis=1)
    distance = np.linalg.norm(corners @ second[:3, :3].T, axis=1)  # from voxel 0, about which the two may turn
    allowed = _SAME_POSITION * np.linalg.norm(second[:3, :3], axis=0).min() + _QUATERNION_ROUNDING * distance
    return 0.0 if (moved <= allowed).all() else float(moved.max())


def _usable(affine: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
        raise UnreadableInputError(f"its affine {matrix.tolist()} is not invertible.")
    return matrix


def _difference(header: Any, shape: tuple[int, int, int], sform: Any, qform: Any) -> str:
    """How the file contradicts itself about where its voxels are; empty where it does not beyond rounding."""
    if sform is None:
        return ""
    if qform is not None:
        apart = distance_apart(sform, qform, shape)
        return f"sform and qform differ by up to {apart:.3g} mm" if apart else ""
    last = np.array(shape, dtype=np.float64) - 1
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    unequal = ~(np.abs(spacing - sizes) <= _SAME_SPACING * spacing)
    if not unequal[last > 0].any():  # 2-D files leave the third size open
        return ""
    return (
        f"the voxels have {np.round(spacing, 3).tolist()} mm by its sform but {np.round(sizes, 3).tolist()} mm by its "
        f"header (pixdim), {np.abs((spacing - sizes) * last).max():.3g} mm over the volume"
    )
