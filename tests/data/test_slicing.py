# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from monai_anomalyclip.data.slicing import SliceView

ORIENTATIONS = [
    "".join(sides) for axes in itertools.permutations(("RL", "AP", "SI")) for sides in itertools.product(*axes)
]


def affine_of(codes: str, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> np.ndarray:
    """RAS affine of a volume whose voxel axes point towards `codes`."""
    to_ras = ornt_transform(axcodes2ornt(codes), axcodes2ornt("RAS"))
    matrix: np.ndarray = np.diag([*spacing, 1.0])
    return np.linalg.inv(inv_ornt_aff(to_ras, shape)) @ matrix


def coordinates(affine: np.ndarray, shape: tuple[int, int, int]) -> torch.Tensor:
    """Volume (3, X, Y, Z) whose value is the voxel's position in mm (R, A, S)."""
    grid = np.stack([*np.indices(shape), np.ones(shape)])
    return torch.from_numpy(np.tensordot(affine, grid, axes=1)[:3])


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_screen_directions_and_inverse_in_all_48_orientations(codes: str, plane: str) -> None:
    shape = (4, 5, 6)
    through = {"axial": "SI", "coronal": "AP", "sagittal": "RL"}[plane]
    axis = next(i for i, code in enumerate(codes) if code in through)
    spacing = tuple(5.0 if i == axis else 1.0 for i in range(3))
    affine = affine_of(codes, spacing, shape)  # type: ignore[arg-type]
    volume = coordinates(affine, shape)

    view = SliceView.from_affine(affine, shape)
    slices = view.to_slices(volume)

    assert view.plane == plane
    assert view.slice_axis == axis
    assert view.n_slices == shape[axis]
    assert slices.shape == (shape[axis], 3, *view.slice_shape)
    # The value is the position, so the direction of rows and columns can be read off: (R, A, S) per step.
    down = slices[0, :, 1, 0] - slices[0, :, 0, 0]
    across = slices[0, :, 0, 1] - slices[0, :, 0, 0]
    posterior, inferior, left = torch.tensor([[0, -1, 0], [0, 0, -1], [-1, 0, 0]], dtype=torch.float64)
    expected = {"axial": (posterior, left), "coronal": (inferior, left), "sagittal": (inferior, posterior)}[plane]
    torch.testing.assert_close(down, expected[0])
    torch.testing.assert_close(across, expected[1])
    assert torch.equal(view.from_slices(slices), volume)
    for index in range(view.n_slices):  # slice i is plane i of the voxel grid, not counted from the other end
        assert set(slices[index].flatten().tolist()) == set(volume.select(1 + axis, index).flatten().tolist())


def test_auto_takes_the_largest_spacing_and_ties_go_to_axial() -> None:
    shape = (4, 4, 4)
    assert SliceView.from_affine(np.diag([3.0, 1, 1, 1]), shape).slice_axis == 0
    assert SliceView.from_affine(np.diag([1.0, 3, 1, 1]), shape).plane == "coronal"
    assert SliceView.from_affine(np.diag([1.0, 1, 1, 1]), shape).plane == "axial"
    assert SliceView.from_affine(np.diag([3.0, 3, 1, 1]), shape).slice_axis != 2
    # Rounding in a header must not turn an isotropic volume into sagittal slices.
    assert SliceView.from_affine(np.diag([1.0001, 1, 1, 1]), shape).plane == "axial"
    isotropic_sagittal = affine_of("PSR", (1.0, 1.0, 1.0), shape)
    assert SliceView.from_affine(isotropic_sagittal, shape).slice_axis == 1
    assert SliceView.from_affine(isotropic_sagittal, shape, slice_axis=2).plane == "sagittal"


def test_oblique_affine_uses_the_closest_axes_and_reports_spacing() -> None:
    angle = np.deg2rad(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = from_matvec(turn @ np.diag([-0.5, 0.7, 4.0]), [10, 20, 30])
    view = SliceView.from_affine(torch.from_numpy(affine), (8, 6, 3))
    assert (view.plane, view.slice_axis, view.row_axis, view.column_axis) == ("axial", 2, 1, 0)
    np.testing.assert_allclose(view.pixel_spacing, (0.7, 0.5))
    ornt = io_orientation(affine)
    assert view.flip_columns == (ornt[0, 1] > 0)
    assert view.flip_columns is False
    assert view.flip_rows is True


def test_singleton_axes_channels_and_metadata() -> None:
    volume = MetaTensor(torch.rand(2, 7, 9, 1), affine=torch.eye(4, dtype=torch.float64))
    view = SliceView.from_affine(volume.affine, volume.shape[1:])
    slices = view.to_slices(volume)
    assert slices.shape == (1, 2, 9, 7)
    assert type(slices) is torch.Tensor  # the affine would no longer be true
    assert torch.equal(view.from_slices(slices), volume.as_tensor())
    single = SliceView.from_affine(np.diag([1.0, 1, 5, 1]), (1, 8, 8))  # a single sagittal picture stays one picture
    assert (single.slice_axis, single.plane) == (0, "sagittal")


@pytest.mark.parametrize(
    ("affine", "shape", "axis", "message"),
    [
        (np.zeros((4, 4)), (2, 2, 2), "auto", "invertible"),
        (np.full((4, 4), np.nan), (2, 2, 2), "auto", "invertible"),
        (np.eye(3), (2, 2, 2), "auto", "invertible"),
        (np.eye(4), (2, 2), "auto", "three positive"),
        (np.eye(4), (2, 0, 2), "auto", "three positive"),
        (np.eye(4), (2, 2, 2), 3, "got 3"),
        (np.eye(4), (2, 2, 2), -1, "got -1"),
        (np.eye(4), (2, 2, 2), True, "got True"),
        (np.eye(4), (2, 2, 2), "axial", "got 'axial'"),
    ],
)
def test_bad_arguments(affine: np.ndarray, shape: tuple[int, ...], axis: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SliceView.from_affine(affine, shape, axis)


def test_wrong_shapes_are_refused() -> None:
    view = SliceView.from_affine(np.eye(4), (2, 3, 4))
    with pytest.raises(ValueError, match="got shape"):
        view.to_slices(torch.zeros(1, 3, 2, 4))
    with pytest.raises(ValueError, match="got shape"):
        view.from_slices(torch.zeros(4, 1, 2, 3))


def test_native_view_shows_frames_as_they_are_stored() -> None:
    frames = torch.rand(5, 3, 4, 7)  # (frames, channels, rows, columns)
    stack = frames.permute(1, 3, 2, 0)
    view = SliceView.native(stack.shape[1:], (0.5, 0.25))
    assert (view.n_slices, view.slice_shape, view.pixel_spacing) == (5, (4, 7), (0.5, 0.25))
    assert torch.equal(view.to_slices(stack), frames)
    assert torch.equal(view.from_slices(frames), stack)
