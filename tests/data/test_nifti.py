# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.affines import from_matvec

from monai_anomalyclip.data import LoadInputd, UnreadableInputError, read_volume
from monai_anomalyclip.data.input_files import is_nifti
from monai_anomalyclip.data.nifti import load_volume

DATA = np.random.default_rng(0).integers(-1000, 2000, (5, 6, 7)).astype(np.int16)
TURN = np.array([[0.0, -1, 0], [0.9, 0, -0.436], [0.436, 0, 0.9]])
AFFINE = from_matvec(TURN @ np.diag([0.7, 0.8, 5.0]), [12, -34, 56])


def saved(tmp_path: Path, image: nib.Nifti1Image, name: str = "v.nii.gz") -> Path:
    nib.save(image, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "V.NII.GZ"])
def test_values_and_affine_as_other_readers_see_them(
    tmp_path: Path, kind: type[nib.Nifti1Image], endianness: str, name: str
) -> None:
    header = kind.header_class(endianness=endianness)
    path = saved(tmp_path, kind(DATA, AFFINE, header), name.lower()).rename(tmp_path / name)
    volume = read_volume(path)
    assert volume.data.dtype == np.float32
    assert volume.notes == ()
    np.testing.assert_array_equal(volume.data, DATA)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    if kind is nib.Nifti1Image and name != "V.NII.GZ":
        itk = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).T, volume.data)
        corner = itk.TransformIndexToPhysicalPoint((4, 5, 6))  # LPS
        np.testing.assert_allclose(np.array(corner) * [-1, -1, 1], (volume.affine @ [4, 5, 6, 1])[:3], atol=1e-3)


def test_slope_and_intercept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(DATA, AFFINE)
    image.header.set_slope_inter(0.5, -100)
    raw = bytearray(image.to_bytes())  # nibabel rescales on writing: put the bare stored values behind the header
    raw[112:120] = np.array([0.5, -100], "<f4").tobytes()
    raw[352:] = DATA.tobytes(order="F")
    (tmp_path / "s.nii").write_bytes(raw)
    np.testing.assert_allclose(read_volume(tmp_path / "s.nii").data, DATA * 0.5 - 100)


def test_dimensions(tmp_path: Path) -> None:
    assert read_volume(saved(tmp_path, nib.Nifti1Image(DATA[..., None, None], AFFINE))).data.shape == (5, 6, 7)
    assert read_volume(saved(tmp_path, nib.Nifti1Image(DATA[..., 0], AFFINE))).data.shape == (5, 6, 1)
    with pytest.raises(
        UnreadableInputError,
        match=r"'v\.nii\.gz': it holds 3 values per voxel \(shape \(5, 6, 7, 1, 3\)\), colours or a",
    ):
        read_volume(saved(tmp_path, nib.Nifti1Image(np.zeros((5, 6, 7, 1, 3), np.uint8), AFFINE)))


@pytest.mark.parametrize("name", ["t.nii", "t.nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_one_time_point_of_a_4d_file(tmp_path: Path, name: str, dtype: type) -> None:
    points = np.random.default_rng(1).integers(-1000, 1000, (5, 6, 7, 4)).astype(dtype)
    path = saved(tmp_path, nib.Nifti1Image(points, AFFINE), name)
    for index in range(4):
        np.testing.assert_array_equal(read_volume(path, time_point=index).data, points[..., index])
    np.testing.assert_array_equal(load_volume(path, time_point=2)[0], points[..., 2])
    assert read_volume(path, time_point=0, max_voxels=210).data.shape == (5, 6, 7)  # the bound is for one volume
    with pytest.raises(UnreadableInputError, match=r"4 time points; choose one with the option time_point \(0 to 3\)"):
        read_volume(path)
    for absent in (4, -1):
        with pytest.raises(UnreadableInputError, match=f"no time point {absent}; .* are 0 to 3"):
            read_volume(path, time_point=absent)
    flat = saved(tmp_path, nib.Nifti1Image(DATA, AFFINE), "flat.nii")
    np.testing.assert_array_equal(read_volume(flat, time_point=0).data, DATA)
    with pytest.raises(UnreadableInputError, match="no time point 1"):
        read_volume(flat, time_point=1)


def test_volumes_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, nib.Nifti1Image(DATA, AFFINE))
    for block in (1, 5, 12, 30, 65, 209, 210):  # parts of a row, rows, slices, several slices
        monkeypatch.setattr("monai_anomalyclip.data.nifti._BLOCK", block)
        np.testing.assert_array_equal(read_volume(path).data, DATA)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">u2", "<i4", ">i8", "<f4", ">f8", "u4", "u8"])
@pytest.mark.parametrize("slope", [1.0, 0.37, 0.0, np.nan])
def test_stored_types_and_slopes_as_nibabel_reads_them(tmp_path: Path, dtype: str, slope: float) -> None:
    rng = np.random.default_rng(2)
    stored = rng.integers(0, 120, (3, 4, 5)).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(stored.dtype)
    raw = bytearray(nib.Nifti1Image(stored, AFFINE, header).to_bytes())
    order = ">" if dtype[0] == ">" else "<"
    raw[112:120] = np.array([slope, -11], f"{order}f4").tobytes()
    raw[352:] = stored.tobytes(order="F")
    (tmp_path / "s.nii").write_bytes(raw)
    expected = nib.load(tmp_path / "s.nii").get_fdata()  # float64
    np.testing.assert_array_equal(read_volume(tmp_path / "s.nii").data, expected.astype(np.float32))
    if not slope > 0:
        np.testing.assert_array_equal(expected, stored)


def test_complex_and_rgb_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="complex"):
        read_volume(saved(tmp_path, nib.Nifti1Image(DATA.astype(np.complex64), AFFINE)))
    for fields in ("RGB", "RGBA"):
        colours = np.zeros((3, 3, 3), np.dtype([(field, "u1") for field in fields]))
        with pytest.raises(UnreadableInputError, match="RGB"):
            read_volume(saved(tmp_path, nib.Nifti1Image(colours, AFFINE)))


def test_not_finite(tmp_path: Path) -> None:
    data = DATA.astype(np.float32)
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    path = saved(tmp_path, nib.Nifti1Image(data, AFFINE))
    assert read_volume(path).notes == ("3 of 210 voxels are NaN or infinite and taken as background.",)
    with pytest.warns(UserWarning, match=r"^3 of 210"):
        assert load_volume(path).isfinite().sum() == 207
    with pytest.raises(UnreadableInputError, match="none of its 210 voxels"):
        read_volume(saved(tmp_path, nib.Nifti1Image(np.full_like(data, np.nan), AFFINE)))


def test_the_form_is_chosen_and_named(tmp_path: Path) -> None:
    image = nib.Nifti1Image(DATA, AFFINE)
    turned = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    image.set_sform(AFFINE, 2)
    image.set_qform(turned, 1)
    path = saved(tmp_path, image)
    with pytest.raises(UnreadableInputError, match=r"^Cannot read 'v\.nii\.gz': sform and qform differ by .* mm;"):
        read_volume(path)
    for form, affine in (("sform", AFFINE), ("qform", turned)):
        with pytest.warns(UserWarning, match=f"^In this file sform and qform differ .* the {form} is used"):
            volume = load_volume(path, form=form)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        assert f"the {form} is used" in volume.meta["notes"]
    with pytest.raises(ValueError, match="must be one of refuse, sform, qform, got 'best'"):
        read_volume(path, form="best")


def test_unusable_affine(tmp_path: Path) -> None:
    raw = bytearray(nib.Nifti1Image(DATA, AFFINE).to_bytes())
    raw[312:328] = bytes(16)  # srow_z
    (tmp_path / "flat.nii").write_bytes(raw)
    with pytest.raises(UnreadableInputError, match="not invertible"):
        read_volume(tmp_path / "flat.nii")


def test_sizes_are_checked_before_the_data(tmp_path: Path) -> None:
    path = saved(tmp_path, nib.Nifti1Image(DATA, AFFINE))
    with pytest.raises(UnreadableInputError, match="5 x 6 x 7 voxels are more than the allowed 209"):
        read_volume(path, max_voxels=209)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    huge = raw.copy()
    huge[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(huge))
    with pytest.raises(UnreadableInputError, match="more than the allowed"):
        read_volume(tmp_path / "bomb.nii.gz")
    far = raw.copy()
    far[108:112] = np.array([1e30], "<f4").tobytes()
    (tmp_path / "far.nii.gz").write_bytes(gzip.compress(far))
    with pytest.raises(UnreadableInputError, match="data begins at byte"):
        read_volume(tmp_path / "far.nii.gz")
    long = raw.copy()  # a film of so many volumes that the chosen one lies beyond 64 GiB of inflated data
    long[40:56] = np.array([4, 1000, 1000, 1000, 100, 1, 1, 1], "<i2").tobytes()
    (tmp_path / "long.nii.gz").write_bytes(gzip.compress(long))
    with pytest.raises(UnreadableInputError, match=r"'long.nii.gz': 80,000,000,352 bytes would have to be read"):
        read_volume(tmp_path / "long.nii.gz", time_point=39, max_voxels=10**9)
    with pytest.raises(UnreadableInputError, match=r"truncated|ends"):
        read_volume(tmp_path / "long.nii.gz", time_point=0, max_voxels=10**9)
    unknown = raw.copy()
    unknown[70:72] = np.array([999], "<i2").tobytes()
    (tmp_path / "unknown.nii").write_bytes(unknown)
    with pytest.raises(UnreadableInputError, match=r"'unknown.nii': its header names the unknown data type 999"):
        read_volume(tmp_path / "unknown.nii")
    negative = raw.copy()
    negative[42:44] = np.array([-5], "<i2").tobytes()
    (tmp_path / "negative.nii").write_bytes(negative)
    with pytest.raises(UnreadableInputError, match=r"negative\.nii"):
        read_volume(tmp_path / "negative.nii")


def test_damaged_files(tmp_path: Path) -> None:
    path = saved(tmp_path, nib.Nifti1Image(DATA, AFFINE))
    packed, raw = path.read_bytes(), gzip.decompress(path.read_bytes())
    cases = {
        "cut.nii": raw[:-9],
        "cut.nii.gz": packed[: len(packed) // 2],
        "short.nii.gz": gzip.compress(raw[:-9]),
        "head.nii": raw[:200],
        "empty.nii": b"",
        "empty.nii.gz": b"",
        "text.nii": b"x" * 1000,
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableInputError, match=name) as caught:
            read_volume(tmp_path / name)
        assert str(tmp_path) not in str(caught.value), name
    with pytest.raises(UnreadableInputError, match="no such file"):
        read_volume(tmp_path / "absent.nii")


def test_load_volumed_gives_a_metatensor(tmp_path: Path) -> None:
    path = saved(tmp_path, nib.Nifti1Image(DATA, AFFINE))
    image = LoadInputd("image")({"image": str(path)})["image"]
    assert image.dtype == torch.float32
    assert image.shape == (1, 5, 6, 7)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(image.meta["original_affine"], AFFINE, atol=1e-5)
    assert image.meta["kind"] == "volume"
    assert image.meta["filename_or_obj"] == str(path)
    assert image.meta["notes"] == ""


def test_header_and_data_in_two_files(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "pair.img")
    np.testing.assert_array_equal(read_volume(tmp_path / "pair.hdr").data, DATA)
    np.testing.assert_allclose(read_volume(tmp_path / "pair.hdr").affine, AFFINE)
    content = (tmp_path / "pair.img").read_bytes()
    (tmp_path / "pair.img").write_bytes(content[:-3])
    with pytest.raises(UnreadableInputError, match=r"'pair\.hdr': the file is truncated"):
        read_volume(tmp_path / "pair.hdr")
    (tmp_path / "pair.img").unlink()
    (tmp_path / "pair.img.gz").write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_volume(tmp_path / "pair.hdr").data, DATA)
    (tmp_path / "pair.img.gz").unlink()
    with pytest.raises(UnreadableInputError, match=r"separate \.img file, which is not beside it"):
        read_volume(tmp_path / "pair.hdr")
    nib.save(nib.AnalyzeImage(DATA.astype(np.int16), AFFINE), tmp_path / "old.hdr")
    with pytest.raises(UnreadableInputError, match=r"Analyze 7\.5, which does not say which side is left"):
        read_volume(tmp_path / "old.hdr")


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    raw = nib.Nifti1Image(DATA, AFFINE).to_bytes()
    (tmp_path / "gzipped.nii").write_bytes(gzip.compress(raw))
    (tmp_path / "plain.nii.gz").write_bytes(raw)
    for name in ("gzipped.nii", "plain.nii.gz"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, DATA)


def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, nib.Nifti1Image(DATA, AFFINE))

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("monai_anomalyclip.data.nifti._read_voxels", full)
    with pytest.raises(UnreadableInputError, match=r"there is not enough memory for it"):
        read_volume(path)


def small_file(compressed: bool) -> bytes:
    image = nib.Nifti1Image(DATA[:3, :4, :2], AFFINE)
    image.header.set_slope_inter(0.5, 3)
    content = image.to_bytes()
    return gzip.compress(content, mtime=0) if compressed else content


@pytest.mark.parametrize("compressed", [False, True])
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=4),
    keep=st.one_of(st.just(10_000), st.integers(0, 400)),
)
def test_mutated_files_are_read_or_refused(
    tmp_path: Path, compressed: bool, flips: list[tuple[int, int]], keep: int
) -> None:
    content = bytearray(small_file(compressed))
    for position, value in flips:
        content[position % len(content)] = value
    path = tmp_path / ("m.nii.gz" if compressed else "m.nii")
    path.write_bytes(content[:keep])
    try:
        volume, message = read_volume(path, time_point=0), ""
    except UnreadableInputError as error:
        volume, message = None, str(error)
    if volume is None:
        assert message.startswith(f"Cannot read '{path.name}': ")
        assert str(tmp_path) not in message
    else:
        assert volume.data.size <= 400  # the file holds no more bytes of voxels
        assert np.isfinite(volume.affine).all()


def test_real_volumes(real_data: Path) -> None:
    refused = {
        "complex": "complex",
        "ct_perfusion": "RGB",
        "example4d": "2 time points",
        "example_nifti2": "2 time points",
        "shear": r"sform and qform differ by up to 35\.6 mm",
    }
    seen = 0
    for path in sorted(p for p in (real_data / "nifti").iterdir() if is_nifti(p)):
        stem, image = path.name.split(".")[0], nib.load(path)
        options = {"time_point": 1} if "time points" in refused.get(stem, "") else {"form": "sform"}
        if stem in refused:
            with pytest.raises(UnreadableInputError, match=refused[stem]):
                read_volume(path)
        if stem in ("complex", "ct_perfusion"):
            continue
        volume = read_volume(path, **(options if stem in refused else {}))  # type: ignore[arg-type]
        expected = image.get_fdata()[..., 1] if "time_point" in options else image.get_fdata()
        np.testing.assert_array_equal(volume.data, expected.astype(np.float32))
        np.testing.assert_array_equal(volume.affine, image.affine)
        assert bool(volume.notes) == (stem in ("minimal", "shear"))
        seen += 1
    assert seen == 9


def test_no_ordinary_real_file_is_refused_for_its_geometry(real_data: Path) -> None:
    paths = [p for p in (real_data / "dicom").rglob("*") if is_nifti(p)]
    assert len(paths) >= 40
    for path in paths:
        if nib.load(path).get_data_dtype().kind in "iuf":  # one is RGB
            assert read_volume(path, time_point=0).notes == ()


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(b"unseen")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("monai_anomalyclip.data.nifti.BoundedFile.open", refuse)
    with pytest.raises(UnreadableInputError, match=r"'volume\.nii\.gz': you have no permission to read it"):
        load_volume(path)
