# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import subprocess
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import from_matvec
from nibabel.nifti1 import Nifti1Extension

from monai_anomalyclip.data import load_volume
from monai_anomalyclip.writers import NiftiGrid

COS, SIN = np.cos(0.45), np.sin(0.45)
TURN = np.array([[0, -1, 0], [COS, 0, -SIN], [SIN, 0, COS]])
AFFINE = from_matvec(TURN @ np.diag([0.7, 0.8, 5]), [12, -34, 56])
SHAPE = (5, 6, 7)
LPS = np.diag([-1.0, -1.0, 1.0])
RNG = np.random.default_rng(0)


def read(content: bytes, kind: type[nib.Nifti1Image] = nib.Nifti1Image) -> nib.Nifti1Image:
    return kind.from_bytes(gzip.decompress(content))


def source(tmp_path: Path, kind: type[nib.Nifti1Image], endianness: str, codes: tuple[int, int]) -> Path:
    data = RNG.integers(-900, 900, SHAPE).astype(np.int16)
    image = kind(data, AFFINE, kind.header_class(endianness=endianness))
    image.set_sform(AFFINE, codes[0])
    image.set_qform(AFFINE, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"DOE^JOHN"
    image.header["aux_file"] = b"DOE^JOHN"
    image.header["intent_name"] = b"DOE^JOHN"
    for field in ("db_name", "data_type", "unused_str"):  # the first two of NIfTI-1, the third of NIfTI-2
        if field in image.header:
            image.header[field] = b"DOE^JOHN"
    image.header["cal_max"] = 4000
    image.header["scl_slope"], image.header["scl_inter"] = 2, -1000
    image.header.extensions.append(Nifti1Extension("comment", b"DOE^JOHN"))
    nib.save(image, tmp_path / "in.nii")
    assert b"DOE^JOHN" in (tmp_path / "in.nii").read_bytes()
    return tmp_path / "in.nii"


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("codes", [(1, 1), (4, 2), (2, 0), (0, 3), (0, 0)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_results_lie_on_the_file_they_are_like(
    tmp_path: Path, kind: type[nib.Nifti1Image], endianness: str, codes: tuple[int, int]
) -> None:
    path = source(tmp_path, kind, endianness, codes)
    original = nib.load(path)
    grid = NiftiGrid(path, SHAPE, load_volume(path).affine.numpy())
    heat = RNG.random(SHAPE).astype(np.float32)
    for values in (heat, (heat >= 0.5).astype(np.uint8)):
        content = grid.to_bytes(values)
        written = read(content, kind)
        assert written.get_data_dtype().newbyteorder("=") == values.dtype
        assert written.header.endianness == endianness
        np.testing.assert_array_equal(np.asarray(written.dataobj), values)
        np.testing.assert_array_equal(written.affine, original.affine)
        for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "dim", "srow_x", "quatern_b", "qoffset_x"):
            np.testing.assert_array_equal(written.header[field], original.header[field], err_msg=field)
        assert (float(written.header["cal_min"]), float(written.header["cal_max"])) == (0, 1)
        assert len(written.header.extensions) == 0
        assert b"DOE^JOHN" not in gzip.decompress(content)
        if kind is nib.Nifti1Image:
            (tmp_path / "out.nii.gz").write_bytes(content)
            ours, theirs = sitk.ReadImage(str(tmp_path / "out.nii.gz")), sitk.ReadImage(str(path))
            assert ours.GetSize() == theirs.GetSize()
            np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin())
            np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection())
            np.testing.assert_allclose(ours.GetSpacing(), theirs.GetSpacing())
            np.testing.assert_array_equal(sitk.GetArrayFromImage(ours).T, values)


def test_affine_alone_is_what_simpleitk_reads(tmp_path: Path) -> None:
    values = RNG.random(SHAPE).astype(np.float32)
    (tmp_path / "v.nii.gz").write_bytes(NiftiGrid(AFFINE, SHAPE).to_bytes(values))
    image = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    np.testing.assert_allclose(image.GetSpacing(), [0.7, 0.8, 5], atol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), LPS @ AFFINE[:3, 3], atol=1e-4)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), LPS @ TURN, atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, values)
    header = nib.load(tmp_path / "v.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("determinant", [1, -1])
def test_a_sheared_affine_stands_in_the_sform_alone(determinant: int) -> None:
    sheared = AFFINE.copy()
    sheared[:3, 2] += [0.4, -0.3, 0.2]
    sheared[:3, 0] *= determinant
    written = read(NiftiGrid(sheared, SHAPE).to_bytes(np.zeros(SHAPE, np.uint8)))
    np.testing.assert_allclose(written.affine, sheared, atol=1e-5)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (1, 0)


def test_a_left_handed_affine_survives() -> None:
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    written = read(NiftiGrid(flipped, SHAPE).to_bytes(np.zeros(SHAPE, np.uint8)))
    np.testing.assert_allclose(written.affine, flipped, atol=1e-5)
    np.testing.assert_allclose(written.get_qform(), flipped, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7, 1), (5, 6, 7, 1, 1)])
def test_axes_of_length_one_are_kept(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), AFFINE), tmp_path / "in.nii.gz")
    image = load_volume(tmp_path / "in.nii.gz")
    values = RNG.random(image.shape[1:]).astype(np.float32)
    written = read(NiftiGrid(tmp_path / "in.nii.gz", values.shape, image.affine.numpy()).to_bytes(values))
    assert written.shape == shape
    np.testing.assert_array_equal(np.asarray(written.dataobj), values.reshape(shape))


def test_one_volume_of_several(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 3), np.float32), AFFINE), tmp_path / "in.nii")
    values = RNG.random(SHAPE).astype(np.float32)
    written = read(NiftiGrid(tmp_path / "in.nii", SHAPE, AFFINE).to_bytes(values))
    assert written.shape == SHAPE
    np.testing.assert_array_equal(np.asarray(written.dataobj), values)
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_either_of_two_forms_that_disagree(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones(SHAPE, np.float32), AFFINE)
    moved = AFFINE.copy()
    moved[:3, 3] += 40
    image.set_sform(AFFINE, 1)
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "in.nii")
    for form in ("sform", "qform"):
        affine = load_volume(tmp_path / "in.nii", form=form).affine.numpy()
        written = read(NiftiGrid(tmp_path / "in.nii", SHAPE, affine).to_bytes(np.zeros(SHAPE, np.uint8)))
        np.testing.assert_allclose(written.get_sform(), AFFINE, atol=1e-4)  # as in the input: both are kept
        np.testing.assert_allclose(written.get_qform(), moved, atol=1e-4)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 0), (1, 1), (0, 0)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_quaternion_that_is_no_rotation(tmp_path: Path, kind: type[nib.Nifti1Image], codes: tuple[int, int]) -> None:
    header = kind(np.ones(SHAPE, np.float32), AFFINE).header
    header["sform_code"], header["qform_code"] = codes
    for field in ("quatern_b", "quatern_c", "quatern_d"):
        header[field] = 0.9
    nib.save(kind(np.ones(SHAPE, np.float32), None, header), tmp_path / "in.nii")
    form = "sform" if codes == (1, 1) else "refuse"
    affine = load_volume(tmp_path / "in.nii", form=form).affine.numpy()
    written = read(NiftiGrid(tmp_path / "in.nii", SHAPE, affine).to_bytes(np.zeros(SHAPE, np.uint8)), kind)
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (codes[0], 0)
    assert np.isfinite(written.get_qform()).all()  # what else reads the file is not stopped by it


def test_results_on_another_grid_are_refused(tmp_path: Path) -> None:
    path = source(tmp_path, nib.Nifti1Image, "<", (1, 1))
    flipped = np.diag([-1.0, 1, 1, 1]) @ AFFINE
    for shape, affine in ((SHAPE, flipped), (SHAPE[::-1], AFFINE), ((5, 6, 8), AFFINE)):
        with pytest.raises(ValueError, match="bring the map back to the input's grid"):
            NiftiGrid(path, shape, affine)


def test_what_does_not_survive_is_said() -> None:
    far = AFFINE.copy()
    far[0, 3] = 1e12  # NIfTI-1 holds single precision
    with pytest.raises(ValueError, match="did not survive writing"):
        NiftiGrid(far + 1e-3 * np.pi, SHAPE).to_bytes(np.zeros(SHAPE, np.uint8))


def test_same_values_same_bytes() -> None:
    values = RNG.random(SHAPE).astype(np.float32)
    content = NiftiGrid(AFFINE, SHAPE).to_bytes(values)
    assert content == NiftiGrid(AFFINE, SHAPE).to_bytes(values)
    assert content[4:8] == b"\0\0\0\0"  # gzip's time of writing (RFC 1952)


def smooth_map(slices: int = 12) -> np.ndarray:
    """Slowly changing floats from 0 to 1, as in an anomaly map, (64, 48, slices)."""
    values = np.cumsum(np.random.default_rng(0).normal(0, 1e-4, 64 * 48 * slices)).astype(np.float32)
    return ((values - values.min()) / np.ptp(values)).reshape(64, 48, slices)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_a_rounded_map_is_off_by_half_a_step(tmp_path: Path, kind: type[nib.Nifti1Image], endianness: str) -> None:
    """The bound is that of rounding to 32768 steps; both ends are met, and no reader leaves [0, 1]."""
    values = smooth_map()
    empty = kind(np.zeros(values.shape, np.int16), AFFINE, kind.header_class(endianness=endianness))
    nib.save(empty, tmp_path / "in.nii")
    (tmp_path / "v.nii.gz").write_bytes(NiftiGrid(tmp_path / "in.nii", values.shape).to_bytes(values, rounded=True))
    written = nib.load(tmp_path / "v.nii.gz")
    assert written.get_data_dtype().newbyteorder("=") == np.uint16
    read_values = {"nibabel": written.get_fdata()}
    if kind is nib.Nifti1Image:
        image = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
        assert image.GetPixelIDValue() in (sitk.sitkFloat32, sitk.sitkFloat64)
        read_values["SimpleITK"] = sitk.GetArrayFromImage(image).T
        read_values["MONAI"] = load_volume(tmp_path / "v.nii.gz").as_tensor()[0].numpy()
    for reader, found in read_values.items():
        assert np.abs(found - values.astype(np.float64)).max() <= 1 / 65536, reader
        assert found.min() == 0, reader
        assert found.max() == 1, reader


def test_a_rounded_map_takes_about_half() -> None:
    values = smooth_map()
    grid = NiftiGrid(AFFINE, values.shape)
    assert len(grid.to_bytes(values, rounded=True)) < 0.6 * len(gzip.compress(values.tobytes("F"), 6))


@pytest.mark.parametrize("kind", ["map", "rounded", "mask"])
def test_any_program_unpacks_it(kind: str, tmp_path: Path) -> None:
    values = smooth_map(200)
    grid = NiftiGrid(AFFINE, values.shape)
    packed = grid.to_bytes((values > 0.3).astype(np.uint8) if kind == "mask" else values, rounded=kind == "rounded")
    content = gzip.decompress(packed)
    assert len(content) == 352 + values.size * {"map": 4, "rounded": 2, "mask": 1}[kind]
    reader = zlib.decompressobj(31)  # one member: nothing is left over
    assert reader.decompress(packed) == content
    assert (reader.eof, reader.unused_data) == (True, b"")
    (tmp_path / "file.gz").write_bytes(packed)
    assert subprocess.run(["gzip", "-dc", str(tmp_path / "file.gz")], capture_output=True).stdout == content


@pytest.mark.parametrize("name", ["v.mha", "v.mgz", "v.hdr", "plain.nii.gz"])
def test_results_of_other_files_lie_where_their_inputs_do(name: str, tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 11], [0.5, 0, 0, -3], [0, 0, 4.0, 7], [0, 0, 0, 1]])
    values = np.zeros((3, 4, 5), np.float32)
    if name == "v.mha":
        image = sitk.GetImageFromArray(values.T)
        image.SetSpacing([0.5, 2, 4])
        image.SetOrigin([-11, 3, 7])
        image.SetDirection([0, 1, 0, -1, 0, 0, 0, 0, 1])  # ITK's places are those of LPS
        sitk.WriteImage(image, str(tmp_path / name))
    elif name == "plain.nii.gz":
        (tmp_path / name).write_bytes(nib.Nifti1Image(values, affine).to_bytes())
    else:
        nib.save((nib.MGHImage if name == "v.mgz" else nib.Nifti1Pair)(values, affine), tmp_path / name)
    written = NiftiGrid(tmp_path / name, values.shape, affine).image(values + 0.5)
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(written.get_fdata(), 0.5)
