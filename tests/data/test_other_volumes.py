# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from monai_anomalyclip.data import InputCatalogue, UnreadableInputError, load_input, read_volume
from monai_anomalyclip.data.nifti import describe_volume

VALUES = np.random.default_rng(0).integers(-500, 900, (7, 6, 5)).astype(np.int16)
AFFINE = np.array([[0, -2.0, 0, 11], [0.5, 0, 0, -3], [0, 0, 4.0, 7], [0, 0, 0, 1]])


def written(path: Path, values: np.ndarray = VALUES) -> Path:
    """A volume at AFFINE, by the library that is at home in its format."""
    if path.suffix in (".mgz", ".mgh"):
        nib.save(nib.MGHImage(values.astype(np.float32), AFFINE), path)
        return path
    image = sitk.GetImageFromArray(values.T, isVector=False)
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    extra = values.ndim - 3
    directions = np.eye(values.ndim)
    directions[:3, :3] = np.diag([-1, -1, 1]) @ AFFINE[:3, :3] / spacing  # ITK's places are those of LPS
    image.SetSpacing([*spacing, *[1.0] * extra])
    image.SetOrigin([-11.0, 3.0, 7.0, *[0.0] * extra])
    image.SetDirection(directions.ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=path.suffix == ".nrrd")
    return path


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.mgz", "a.mgh"])
def test_values_and_places(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, VALUES)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    shape, affine, notes = describe_volume(path)
    assert (shape, notes) == (VALUES.shape, ())
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
    catalogue = InputCatalogue(tmp_path)
    assert [source.kind for source in catalogue.sources.values()] == ["volume"]
    assert set(catalogue.left_out()) <= {"voxels of a header beside it"}
    assert load_input(path).shape == (1, *VALUES.shape)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mgz"])
def test_time_points(tmp_path: Path, name: str) -> None:
    series = np.stack([VALUES, VALUES + 1000], axis=-1)
    path = written(tmp_path / name, series)
    with pytest.raises(UnreadableInputError, match="2 time points"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, time_point=1).data, VALUES + 1000)


def test_colours_and_sizes_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6, 7, 3), np.uint8), isVector=True), str(tmp_path / "c.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6, 7), np.complex64)), str(tmp_path / "complex.nrrd"))
    for name in ("c.nrrd", "complex.nrrd"):
        with pytest.raises(UnreadableInputError, match=f"'{name}': it holds several values per voxel"):
            read_volume(tmp_path / name)
    with pytest.raises(UnreadableInputError, match="more than the allowed 100"):
        read_volume(written(tmp_path / "a.mha"), max_voxels=100)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mgz"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.7])
def test_damaged_files_are_named_without_their_folder(tmp_path: Path, name: str, keep: float) -> None:
    path = written(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UnreadableInputError, match=rf"^Cannot read '{name}': ") as caught:
        read_volume(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("place", ["../secret.raw", "/etc/hostname", "LIST", "s%03d.raw 1 3 1"])
def test_voxels_elsewhere_are_not_opened(tmp_path: Path, place: str) -> None:
    (tmp_path / "in").mkdir()
    path = written(tmp_path / "in" / "a.mhd")
    path.write_text(path.read_text().replace("a.raw", place))
    with pytest.raises(UnreadableInputError, match="in several files, or in another folder"):
        read_volume(path)
