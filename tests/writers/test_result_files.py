# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.affines import from_matvec
from PIL import Image

from monai_anomalyclip.data import SliceView, load_volume
from monai_anomalyclip.writers import NiftiGrid, write_frame_result, write_volume_result
from monai_anomalyclip.writers.result_files import (
    FRAME_RESULTS,
    OVERLAY,
    drawn_frame,
    refuse_existing,
    result_paths,
)

COS, SIN = np.cos(0.45), np.sin(0.45)
AFFINE = from_matvec(np.array([[0, -1, 0], [COS, 0, -SIN], [SIN, 0, COS]]) @ np.diag([0.7, 0.8, 5]), [12, -34, 56])
SHAPE = (5, 6, 7)


def frame() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8)
    heat = torch.rand(1, 30, 40)
    return image, heat, (heat >= 0.5).to(torch.uint8)


def test_frame_files_hold_the_map_and_the_mask_at_input_size(tmp_path: Path) -> None:
    image, heat, mask = frame()
    paths = write_frame_result(tmp_path, "sub/a", image, heat, mask)
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == ["a_heat.png", "a_mask.png", "a_overlay.jpg"]
    assert [p.name for p in paths] == ["a_heat.png", "a_mask.png", "a_overlay.jpg"]
    stored, marked = Image.open(paths[0]), Image.open(paths[1])
    assert (stored.mode, stored.size, marked.mode, marked.size) == ("L", (40, 30), "L", (40, 30))
    assert np.abs(np.asarray(stored) / 255 - heat[0].numpy()).max() <= 1 / 510 + 1e-6
    np.testing.assert_array_equal(np.asarray(marked), mask[0].numpy() * 255)
    for path in paths:
        content = path.read_bytes()
        kinds = {
            content[i - 4 : i] for i in range(4, len(content)) if content[i - 4 : i] in (b"tEXt", b"iTXt", b"eXIf")
        }
        assert not kinds
        assert set(Image.open(path).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}  # no text
        assert path.stat().st_mode & 0o777 == 0o600

    again = write_frame_result(tmp_path, "b", image.float() / 255, heat, mask[0])  # float image, mask without channel
    assert [p.read_bytes() for p in again[:2]] == [p.read_bytes() for p in paths[:2]]
    ends = torch.tensor([[[0.0, 1.0]]])
    edge = write_frame_result(tmp_path, "edge", torch.zeros(1, 1, 2), ends, ends > 0.5)
    np.testing.assert_array_equal(np.asarray(Image.open(edge[0])), [[0, 255]])


def test_sixteen_bits_on_request(tmp_path: Path) -> None:
    image, heat, mask = frame()
    heat[0, 0, :2] = torch.tensor([0.0, 1.0])
    (path,) = write_frame_result(tmp_path, "a", image, heat, mask, suffixes=("_heat.png",), deep=True)
    with Image.open(path) as stored:
        assert (stored.mode, stored.size) == ("I;16", (40, 30))
        values = np.asarray(stored)
    assert np.abs(values / 65535 - heat[0].numpy()).max() <= 1 / 131070 + 1e-7
    assert values[0, :2].tolist() == [0, 65535]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), values)  # libpng reads the same


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (33, 65)])
def test_libpng_reads_pictures_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    heat = torch.rand(1, *size)
    paths = write_frame_result(tmp_path, "a", torch.rand(3, *size), heat, heat > 0.5)
    for path, values in zip(paths, (torch.round(heat[0] * 255), 255 * (heat[0] > 0.5)), strict=False):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), values.numpy())
        np.testing.assert_array_equal(np.asarray(Image.open(path)), values.numpy())


def test_a_jpeg_overlay_looks_like_what_was_drawn(tmp_path: Path) -> None:
    """Quality 90 of a smooth picture: grey levels differ by a few; the panels drawn before are what is stored."""
    ramp = torch.linspace(0, 255, 60 * 300).reshape(1, 60, 300).to(torch.uint8)
    heat = torch.linspace(0, 1, 60 * 300).reshape(1, 60, 300)
    drawn, (width, height) = drawn_frame(ramp, heat, heat > 2, caption="score 1")
    assert (width, height) == (2 * 300 + 4, 60)
    (path,) = write_frame_result(tmp_path, "a", ramp, heat, heat > 2, suffixes=(OVERLAY,), drawn=drawn)
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        stored = np.asarray(picture).astype(int)
    assert np.abs(stored - drawn).mean() < 2
    assert np.abs(stored[:height, :300] - ramp[0].numpy()[..., None]).mean() < 2


def test_results_are_not_overwritten_unless_told(tmp_path: Path) -> None:
    image, heat, mask = frame()
    (tmp_path / "a_mask.png").write_text("drawn by hand for weeks")
    with pytest.raises(FileExistsError, match=r"a_mask\.png exist already .* set overwrite"):
        write_frame_result(tmp_path, "a", image, heat, mask)
    assert [p.name for p in tmp_path.iterdir()] == ["a_mask.png"]
    write_frame_result(tmp_path, "a", image, heat, mask, overwrite=True)
    assert Image.open(tmp_path / "a_mask.png").size == (40, 30)


def test_bad_frames_write_nothing(tmp_path: Path) -> None:
    image, heat, mask = frame()
    bad = [(heat * 2, mask), (heat - 1, mask), (heat * torch.nan, mask), (heat[:, :29], mask), (heat, mask[:, :29])]
    for heat_, mask_ in bad:
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]|Expected a map and a mask"):
            write_frame_result(tmp_path, "a", image, heat_, mask_)
    for name in ("../a", "/a", "a/../../b", ".a", "a b", "", "a\0b", "a/.b", "a\n"):
        with pytest.raises(ValueError, match="Result name"):
            write_frame_result(tmp_path, name, image, heat, mask)
    assert list(tmp_path.iterdir()) == []


def test_only_the_files_that_are_asked_for(tmp_path: Path) -> None:
    paths = write_frame_result(tmp_path, "a", *frame(), suffixes=FRAME_RESULTS[2:])
    assert [p.name for p in paths] == ["a_overlay.jpg"]
    assert list(tmp_path.iterdir()) == paths


def volume(tmp_path: Path) -> tuple[MetaTensor, torch.Tensor, SliceView, NiftiGrid]:
    """A volume in a file, a map, how it is sliced, and its grid."""
    data = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "in.nii")
    image = load_volume(tmp_path / "in.nii")
    grid = NiftiGrid(tmp_path / "in.nii", SHAPE, image.affine.numpy())
    return image, torch.rand(1, *SHAPE), SliceView.from_affine(image.affine, SHAPE), grid


def test_volume_files_lie_on_the_input(tmp_path: Path) -> None:
    image, heat, view, grid = volume(tmp_path)
    mask = (heat >= 0.5).to(torch.uint8)
    paths = write_volume_result(tmp_path / "out", "sub/v", image, heat, mask, view=view, grid=grid)
    assert [p.name for p in paths] == ["v_map.nii.gz", "v_mask.nii.gz", "v_overlay.jpg"]
    assert sorted((tmp_path / "out" / "sub").iterdir()) == paths
    original = sitk.ReadImage(str(tmp_path / "in.nii"))
    exact = write_volume_result(tmp_path / "out", "f", image, heat, mask, view=view, grid=grid, float_map=True)
    for result, values, dtype, off in (
        (paths[0], heat, np.float32, 1 / 65536),
        (exact[0], heat, np.float32, 0),
        (paths[1], mask, np.uint8, 0),
    ):
        written = sitk.ReadImage(str(result))
        for read in ("GetSize", "GetOrigin", "GetDirection", "GetSpacing"):
            np.testing.assert_allclose(getattr(written, read)(), getattr(original, read)())
        stored = sitk.GetArrayFromImage(written)
        assert stored.dtype == dtype or off
        np.testing.assert_allclose(stored.T, values[0].numpy(), rtol=0, atol=off)
        assert result.stat().st_mode & 0o777 == 0o600
    with Image.open(paths[2]) as sheet:
        assert sheet.mode == "RGB"
        assert "exif" not in sheet.info


def test_without_a_grid_there_is_the_picture_alone(tmp_path: Path) -> None:
    image, heat, view, _ = volume(tmp_path)
    paths = write_volume_result(tmp_path / "out", "v", image, heat, heat > 0.5, view=view)
    assert [p.name for p in paths] == ["v_overlay.jpg"]
    assert list((tmp_path / "out").iterdir()) == paths
    colour = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    assert write_volume_result(tmp_path / "out", "c", colour, heat, heat > 0.5, view=view)[0].is_file()


def test_existing_volumes_are_kept_unless_told(tmp_path: Path) -> None:
    image, heat, view, grid = volume(tmp_path)
    (tmp_path / "v_mask.nii.gz").write_text("drawn by hand for weeks")
    with pytest.raises(FileExistsError, match=r"v_mask\.nii\.gz exist already"):
        write_volume_result(tmp_path, "v", image, heat, heat > 0.5, view=view, grid=grid)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.nii", "v_mask.nii.gz"]
    write_volume_result(tmp_path, "v", image, heat, heat > 0.5, view=view, grid=grid, overwrite=True)
    assert nib.load(tmp_path / "v_mask.nii.gz").shape == SHAPE


def test_same_result_same_bytes(tmp_path: Path) -> None:
    image, heat, view, grid = volume(tmp_path)
    runs = [
        write_volume_result(tmp_path / run, "v", image, heat, heat[0] > 0.5, view=view, grid=grid) for run in ("a", "b")
    ]
    assert [p.read_bytes() for p in runs[0]] == [p.read_bytes() for p in runs[1]]


def test_bad_volumes_write_nothing(tmp_path: Path) -> None:
    image, heat, view, grid = volume(tmp_path)
    for bad in (heat[:, :4], heat * 2, heat * torch.nan):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]|Expected a map and a mask"):
            write_volume_result(tmp_path / "out", "v", image, bad, bad > 0.5, view=view, grid=grid)
    assert [p.name for p in tmp_path.iterdir()] == ["in.nii"]


def test_paths_of_results(tmp_path: Path) -> None:
    paths = result_paths(tmp_path, "sub/a", FRAME_RESULTS)
    assert paths == [tmp_path / "sub" / f"a{suffix}" for suffix in ("_heat.png", "_mask.png", "_overlay.jpg")]
    refuse_existing(paths)
    paths[1].parent.mkdir()
    for path in paths[1:]:
        path.touch()
    with pytest.raises(
        FileExistsError, match=r"^a_mask\.png, a_overlay\.jpg exist already in the output folder"
    ) as caught:
        refuse_existing(paths)
    assert str(tmp_path) not in str(caught.value)
    # Each front end's own option is named.
    assert str(caught.value).endswith("or set overwrite (--force; --overwrite True for a bundle).")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_volumes(tmp_path: Path, real_data: Path) -> None:
    names = ("anatomical.nii", "example_ct_sm.nii.gz", "example_mr_sm.nii.gz", "minimal.nii.gz", "shear.nii.gz")
    for path in (real_data / "nifti" / name for name in names):
        image = load_volume(path, form="sform" if path.name == "shear.nii.gz" else "refuse")
        view = SliceView.from_affine(image.affine, image.shape[1:])
        grid = NiftiGrid(path, tuple(image.shape[1:]), image.affine.numpy())
        heat = torch.zeros_like(image.as_tensor())
        paths = write_volume_result(tmp_path, path.name.split(".")[0], image, heat, heat > 0.5, view=view, grid=grid)
        if path.name != "shear.nii.gz":  # SimpleITK cannot open a sheared volume, neither the input nor the result
            ours, theirs = sitk.ReadImage(str(paths[1])), sitk.ReadImage(str(path))
            assert ours.GetSize() == theirs.GetSize()
            for read in ("GetOrigin", "GetDirection", "GetSpacing"):
                np.testing.assert_allclose(getattr(ours, read)(), getattr(theirs, read)(), err_msg=path.name)
        original, written = nib.load(path), nib.load(paths[0])
        np.testing.assert_array_equal(written.affine, original.affine)
        assert [int(written.header[c]) for c in ("sform_code", "qform_code")] == [
            int(original.header[c]) for c in ("sform_code", "qform_code")
        ]
