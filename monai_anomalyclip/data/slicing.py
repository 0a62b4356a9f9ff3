# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Cut a volume into the slices a radiologist looks at, and put slices back, by permuting and flipping axes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

__all__ = ["SliceView"]

_PLANES = ("sagittal", "coronal", "axial")
# Spacings that differ by less than this fraction count as equal when the through-plane axis is looked for.
_TIE = 0.01


@dataclass(frozen=True)
class SliceView:
    """How the slices of one volume are laid out on a screen. Make it with :meth:`from_affine` or :meth:`native`.

    Slices are shown as a radiologist sees them, to the closest canonical axes (oblique volumes are not resampled):
    axial rows run towards posterior and columns towards the patient's left, coronal rows towards inferior and columns
    towards left, sagittal rows towards inferior and columns towards posterior. The order of the slices is that of
    the voxel index, so slice ``i`` is ``volume.take(i, axis=slice_axis)``.

    Args:
        spatial_shape: shape (X, Y, Z) of the volume.
        slice_axis: spatial axis (0, 1 or 2) along which the volume is cut.
        row_axis: spatial axis that runs down the slice (its length is H).
        column_axis: spatial axis that runs across the slice (its length is W).
        flip_rows: whether rows run against the voxel index.
        flip_columns: whether columns run against the voxel index.
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``, whichever is closest, or ``"native"``.
        pixel_spacing: distance in mm between rows and between columns.
    """

    spatial_shape: tuple[int, int, int]
    slice_axis: int
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool
    plane: str
    pixel_spacing: tuple[float, float]

    @classmethod
    def from_affine(
        cls, affine: NdarrayOrTensor, spatial_shape: Sequence[int], slice_axis: int | str = "auto"
    ) -> SliceView:
        """Choose the view for a volume.

        Args:
            affine: (4, 4) matrix from voxel indices to millimetres in RAS (what nibabel and MONAI use).
            spatial_shape: (X, Y, Z).
            slice_axis: 0, 1, 2 or ``"auto"``: the only axis of length 1 if there is one, else the through-plane axis,
                i.e. that of the largest voxel spacing; among axes within one per cent of the largest the one closest
                to superior-inferior.

        Raises:
            ValueError: the shape is not of three positive sizes, the affine is not an invertible (4, 4) matrix, or
                the axis is none of the above.
        """
        shape = tuple(int(size) for size in spatial_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"A volume needs three positive spatial sizes, got {shape}.")
        matrix = np.asarray(torch.as_tensor(affine).cpu(), dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
            raise ValueError(
                f"The affine must be an invertible (4, 4) matrix, got {matrix.tolist()}: correct the image's header."
            )
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        # Per voxel axis: the closest RAS axis and +1 or -1 along it.
        orientation = nib.io_orientation(matrix)
        canonical = [int(axis) for axis in orientation[:, 0]]

        if slice_axis == "auto":
            thick = [axis for axis in range(3) if spacing[axis] >= (1 - _TIE) * spacing.max()]
            superior = np.abs(matrix[2, :3]) / spacing  # cosine of each axis with superior-inferior
            chosen = shape.index(1) if shape.count(1) == 1 else max(thick, key=lambda axis: float(superior[axis]))
        elif isinstance(slice_axis, int) and not isinstance(slice_axis, bool) and 0 <= slice_axis <= 2:
            chosen = slice_axis
        else:
            raise ValueError(f"slice_axis must be 0, 1, 2 or 'auto', got {slice_axis!r}.")

        # Rows run along S, or along A when S is the slice axis; columns along R, or along A when R is.
        plane = canonical[chosen]
        row = canonical.index(1 if plane == 2 else 2)
        column = canonical.index(1 if plane == 0 else 0)
        return cls(
            spatial_shape=shape,
            slice_axis=chosen,
            row_axis=row,
            column_axis=column,
            # On the screen every in-plane axis runs towards P, I or L: against R, A and S.
            flip_rows=bool(orientation[row, 1] > 0),
            flip_columns=bool(orientation[column, 1] > 0),
            plane=_PLANES[plane],
            pixel_spacing=(float(spacing[row]), float(spacing[column])),
        )

    @classmethod
    def native(
        cls, spatial_shape: Sequence[int], pixel_spacing: tuple[float, float] = (1.0, 1.0), plane: str = "native"
    ) -> SliceView:
        """The view of frames that are shown as they are stored: volume (X columns, Y rows, Z frames), nothing flipped.

        Args:
            spatial_shape: (X, Y, Z).
            pixel_spacing: distance in mm between rows and between columns; equal ones where it is unknown.
            plane: what to call it.
        """
        columns, rows, frames = (int(size) for size in spatial_shape)
        return cls((columns, rows, frames), 2, 1, 0, False, False, plane, pixel_spacing)

    @property
    def n_slices(self) -> int:
        """Number of slices D."""
        return self.spatial_shape[self.slice_axis]

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Size (H, W) of a slice."""
        return self.spatial_shape[self.row_axis], self.spatial_shape[self.column_axis]

    def to_slices(self, volume: Tensor) -> Tensor:
        """Cut a volume (C, X, Y, Z) into slices (D, C, H, W), a plain tensor; a view of it if no axis is flipped.

        Raises:
            ValueError: the volume has another shape than the one the view was made for.
        """
        if volume.ndim != 4 or tuple(volume.shape[1:]) != self.spatial_shape:
            raise ValueError(f"Expected a volume (C, {self._sizes()}), got shape {tuple(volume.shape)}.")
        slices = _plain(volume).permute(1 + self.slice_axis, 0, 1 + self.row_axis, 1 + self.column_axis)
        return self._flipped(slices)

    def from_slices(self, slices: Tensor) -> Tensor:
        """Put slices (D, C, H, W) back into a volume (C, X, Y, Z), a plain tensor: the exact inverse of `to_slices`.

        Raises:
            ValueError: the slices have another number or size than the view's.
        """
        expected = (self.n_slices, *self.slice_shape)
        if slices.ndim != 4 or (slices.shape[0], *slices.shape[2:]) != expected:
            raise ValueError(
                f"Expected slices (D, C, H, W) with D, H, W = {expected}, got shape {tuple(slices.shape)}."
            )
        flipped = self._flipped(_plain(slices))
        order = (self.slice_axis, self.row_axis, self.column_axis)
        source = (0, 2, 3)
        return flipped.permute(1, *(source[order.index(axis)] for axis in range(3)))

    def _flipped(self, slices: Tensor) -> Tensor:
        axes = [axis for axis, flip in ((2, self.flip_rows), (3, self.flip_columns)) if flip]
        return slices.flip(axes) if axes else slices  # flip() would copy a whole volume for nothing

    def _sizes(self) -> str:
        return ", ".join(map(str, self.spatial_shape))


def _plain(tensor: Tensor) -> Tensor:
    """Drop the metadata: its affine would no longer describe the permuted axes."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
