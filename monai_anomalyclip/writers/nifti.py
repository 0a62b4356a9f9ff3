# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""NIfTI files of results, on the grid of the input."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from nibabel.spatialimages import HeaderDataError

from monai_anomalyclip.data.nifti import describe_volume, nifti_header

__all__ = ["MAP_STEPS", "NiftiGrid"]

MAP_STEPS = 2**15
"""A rounded map has so many steps from 0 to 1: a power of two, which readers get exactly."""

_LEVEL = 2  # a quarter of the time of level 3, and of noise-like maps as small
_GZIP = 31  # zlib's number for the container
_BLOCK = 2**18  # voxels

_SCANNER = 1  # sform and qform code: scanner-based coordinates


class NiftiGrid:
    """The grid that NIfTI results lie on.

    Args:
        like: a NIfTI file, whose shape, byte order and geometry (affine, sform and qform with their codes, voxel sizes,
            units) results take over; a qform that is no rotation, and free text and extensions, which may name a
            patient, are dropped. Or a (4, 4) affine from voxel index to mm in RAS; a sheared one is stored as sform
            alone, for a qform cannot hold it.
        shape: (X, Y, Z) of the results.
        affine: (4, 4) that the caller works with; it must be the file's.

    Raises:
        ValueError: the file has another size or affine.

    Example::

        grid = NiftiGrid("brain.nii.gz", anomaly_map.shape)
        Path("map.nii.gz").write_bytes(grid.to_bytes(anomaly_map))
    """

    def __init__(
        self,
        like: str | os.PathLike[str] | npt.NDArray[np.float64],
        shape: tuple[int, ...],
        affine: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.file_shape = self.shape
        if isinstance(like, np.ndarray):
            self.kind, self.header = nib.Nifti1Image, _header_of(like)
            self.affine = like
            return
        source = nifti_header(like)
        if source is None:  # NRRD and the like, which have no more than an affine
            own = describe_volume(like, only_if_4d=True, time_point=0)[1]
            self.kind, self.header, self.affine = nib.Nifti1Image, _header_of(own), own
            return
        self.kind = nib.Nifti2Image if isinstance(source, nib.Nifti2Header) else nib.Nifti1Image
        self.header = _without_text(source)
        shape_of_file, self.affine = source.get_data_shape(), source.get_best_affine()
        spatial = (*shape_of_file[:3], *(1,) * (3 - len(shape_of_file)))
        forms = [self.affine]
        if _has_rotation(self.header):
            forms.append(source.get_qform())  # the user may have chosen the qform of two that disagree
        else:
            _forget_qform(self.header)
        same = affine is None or any(np.allclose(affine, one, rtol=1e-4, atol=1e-4) for one in forms)
        if affine is not None and not (same and spatial == self.shape):
            raise ValueError(
                f"The result has shape {self.shape} and affine {np.asarray(affine).tolist()}, its file has "
                f"{shape_of_file} and {self.affine.tolist()}: bring the map back to the input's grid first."
            )
        if int(np.prod(shape_of_file)) == int(np.prod(self.shape)):  # else one volume of a 4-D file
            self.file_shape = shape_of_file

    def image(self, values: npt.NDArray[Any]) -> Any:
        """The image of nibabel that holds `values` (X, Y, Z) in [0, 1], as a reader of the file will see it.

        Raises:
            ValueError: the geometry does not survive writing.
        """
        return self.kind.from_bytes(b"".join(self._parts(values)))

    def to_bytes(self, values: npt.NDArray[Any], rounded: bool = False) -> bytes:
        """The bytes of a .nii.gz that holds `values` (X, Y, Z) in [0, 1], without name and time.

        Args:
            values: a map or a mask.
            rounded: store a map as uint16 with the slope 1/32768: a third of the bytes, off by at most 1/65536.

        Raises:
            ValueError: the geometry does not survive writing.
        """
        packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        return b"".join([*map(packer.compress, self._parts(values, rounded)), packer.flush()])

    def _parts(self, values: npt.NDArray[Any], rounded: bool = False) -> Iterator[bytes]:
        """The bytes of the file, uncompressed, some slices at a time.

        So much stays in the processor's cache: copies of a whole volume take thirty times as long.
        """
        header = self._header(np.dtype(np.uint16) if rounded else values.dtype, 1 / MAP_STEPS if rounded else 1)
        stream = io.BytesIO()
        header.write_to(stream)
        yield stream.getvalue()
        volume = values.reshape(self.file_shape)
        axis = max((axis for axis, side in enumerate(volume.shape) if side > 1), default=0)
        last = np.moveaxis(volume, axis, 0)
        step = max(1, _BLOCK // max(1, last[0].size))
        for start in range(0, len(last), step):
            block = last[start : start + step]
            if rounded:
                scaled = block * np.float32(MAP_STEPS)
                block = np.rint(scaled, out=scaled)
            yield np.moveaxis(block.astype(header.get_data_dtype()), 0, axis).tobytes(order="F")

    def _header(self, stored: np.dtype[Any], slope: float) -> Any:
        header = self.header.copy()
        header.set_data_dtype(stored)
        header["cal_min"], header["cal_max"] = 0, 1
        nothing = np.broadcast_to(np.zeros((), stored), self.file_shape)
        header = self.kind(nothing, None, header).header  # forgets the slope that it is given
        header.set_slope_inter(slope, 0)
        again = header.from_fileobj(io.BytesIO(header.binaryblock))
        shape, affine = again.get_data_shape(), again.get_best_affine()
        if shape != self.file_shape or not np.allclose(affine, self.affine, rtol=1e-6, atol=1e-4):
            raise ValueError(f"The affine {self.affine.tolist()} did not survive writing: got {affine.tolist()}.")
        return header


def _without_text(header: Any) -> Any:
    clean = header.copy()
    clean.extensions.clear()
    for field in ("descrip", "aux_file", "db_name", "intent_name", "data_type", "unused_str"):
        if field in clean:  # db_name and data_type are NIfTI-1 only, unused_str NIfTI-2
            clean[field] = b""
    clean["intent_code"] = 0
    for field in ("intent_p1", "intent_p2", "intent_p3"):
        clean[field] = 0
    return clean


def _has_rotation(header: Any) -> bool:
    """Whether the quaternion of the qform is one; it stands in the header even where the qform's code is 0."""
    try:
        header.get_qform()
    except (ValueError, HeaderDataError):
        return False
    return True


def _forget_qform(header: Any) -> None:
    header["qform_code"] = 0
    for field in ("quatern_b", "quatern_c", "quatern_d"):
        header[field] = 0


def _header_of(affine: npt.NDArray[np.float64]) -> Any:
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), affine)
    image.set_sform(affine, _SCANNER)
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    sheared = not np.allclose(columns.T @ columns, np.eye(3), atol=1e-4)
    image.set_qform(affine, 0 if sheared else _SCANNER, strip_shears=True)
    image.header.set_xyzt_units("mm")
    return image.header
