# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from monai_anomalyclip.data import UnreadableInputError, read_volume
from monai_anomalyclip.data.nifti_form import BoundedFile, choose_affine

SHAPE = (512, 512, 300)
AFFINE = from_matvec(
    Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix() @ np.diag([0.5, 0.5, 2]), [1, 2, 3]
)


def header(sform: np.ndarray | None, qform: np.ndarray | None, shape: tuple[int, ...] = SHAPE) -> nib.Nifti1Header:
    made = nib.Nifti1Header()
    made.set_data_shape(shape)
    if sform is not None:
        made.set_zooms(np.linalg.norm(sform[:3, :3], axis=0))
    made.set_qform(qform, int(qform is not None))
    made.set_sform(sform, int(sform is not None))
    return nib.Nifti1Header(made.binaryblock)


@pytest.mark.parametrize("form", ["refuse", "sform", "qform"])
def test_forms_that_agree(form: str) -> None:
    affine, notes = choose_affine(header(AFFINE, AFFINE), SHAPE, form)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
    assert notes == []


def test_rounding_of_the_quaternion_is_no_conflict() -> None:
    """Slightly oblique scans, a half turn from RAS as in DICOM: float32 quaternions move corners by half a voxel."""
    rng = np.random.default_rng(0)
    moved = []
    for _ in range(300):
        tilt = Rotation.from_rotvec(rng.normal(size=3) * 10 ** rng.uniform(-4, -0.5)).as_matrix()
        affine = from_matvec(tilt @ np.diag([-0.5, -0.5, 1.0]), rng.normal(size=3) * 150)
        made = header(affine, affine)
        chosen, notes = choose_affine(made, SHAPE, "refuse")
        np.testing.assert_allclose(chosen, affine, atol=1e-4)
        assert notes == []
        moved.append(np.linalg.norm((made.get_sform() - made.get_qform()) @ [511, 511, 299, 1]))
    assert max(moved) > 0.25  # mm: half a voxel


@pytest.mark.parametrize(
    ("change", "millimetres"),
    [
        (np.diag([-1.0, -1, 1, 1]), None),
        (from_matvec(np.eye(3), [0, 0, 1.0]), "1"),
        (from_matvec(Rotation.from_euler("z", 1, degrees=True).as_matrix(), [0, 0, 0]), None),
    ],
    ids=["half turn", "1 mm", "1 degree"],
)
def test_conflicts_are_refused_unless_a_form_is_chosen(change: np.ndarray, millimetres: str | None) -> None:
    other = change @ AFFINE
    corners = np.array([[x, y, z, 1] for x in (0, 511) for y in (0, 511) for z in (0, 299)]).T
    far = f"{np.linalg.norm((other - AFFINE) @ corners, axis=0).max():.3g}"
    assert millimetres in (None, far)
    made = header(AFFINE, other)
    with pytest.raises(
        UnreadableInputError, match=f"differ by up to {far} mm; .* nifti_form sform or nifti_form qform"
    ):
        choose_affine(made, SHAPE, "refuse")
    for form, expected in (("sform", AFFINE), ("qform", other)):
        affine, notes = choose_affine(made, SHAPE, form)
        np.testing.assert_allclose(affine, expected, atol=1e-4)
        assert notes == [f"In this file sform and qform differ by up to {far} mm; the {form} is used, as asked."]


def test_sform_against_the_voxel_sizes() -> None:
    made = header(AFFINE, None)
    made["pixdim"][1:4] = 0.501, 0.5, 2.01  # rounded, as it is often stored
    assert choose_affine(made, SHAPE, "refuse")[1] == []
    made["pixdim"][1:4] = 1, 1, 1
    with pytest.raises(
        UnreadableInputError, match=r"by its sform but \[1\.0, 1\.0, 1\.0\].* 299 mm .* nifti_form sform\.$"
    ):
        choose_affine(made, SHAPE, "refuse")
    affine, notes = choose_affine(made, SHAPE, "sform")
    np.testing.assert_allclose(affine, AFFINE, atol=1e-5)
    assert "299 mm over the volume; the sform is used, as asked." in notes[0]
    made["pixdim"][1:4] = 0.5, 0.5, 1
    assert choose_affine(made, (512, 512, 1), "refuse")[1] == []  # a single slice has no third distance


def test_one_form_alone() -> None:
    for made, present, absent in ((header(AFFINE, None), "sform", "qform"), (header(None, AFFINE), "qform", "sform")):
        for form in ("refuse", present):
            affine, notes = choose_affine(made, SHAPE, form)
            np.testing.assert_allclose(affine, AFFINE, atol=1e-4)
            assert notes == []
        with pytest.raises(UnreadableInputError, match=f"no {absent}; .* nifti_form {present}"):
            choose_affine(made, SHAPE, absent)


@pytest.mark.parametrize("form", ["refuse", "sform", "qform"])
def test_neither_form(form: str) -> None:
    made = header(None, None)
    made.set_zooms((2, 2, 3))
    affine, notes = choose_affine(made, SHAPE, form)
    np.testing.assert_array_equal(affine, made.get_base_affine())
    assert "neither sform nor qform" in notes[0]


def test_meaningless_qform() -> None:
    made = header(AFFINE, AFFINE)
    made["quatern_b"] = 7
    for form in ("refuse", "qform"):
        with pytest.raises(UnreadableInputError, match="no rotation"):
            choose_affine(made, SHAPE, form)
    np.testing.assert_allclose(choose_affine(made, SHAPE, "sform")[0], AFFINE, atol=1e-5)
    made = header(AFFINE, AFFINE)
    made["qoffset_x"] = np.nan
    with pytest.raises(UnreadableInputError, match="nan mm"):
        choose_affine(made, SHAPE, "refuse")
    with pytest.raises(UnreadableInputError, match="not invertible"):
        choose_affine(made, SHAPE, "qform")


CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.mark.parametrize("name", ["f.bin", "f.bin.gz", "F.GZ"])
def test_reads_what_is_asked_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONTENT, 1) if name.lower().endswith("gz") else CONTENT)
    with BoundedFile.open(path) as file:
        assert file.size == (None if name.lower().endswith("gz") else len(CONTENT))
        assert file.read_exactly(5) == CONTENT[:5]
        file.skip_to(2_500_000)
        assert file.read_exactly(9) == CONTENT[2_500_000:2_500_009]
        assert file.position == 2_500_009
        file.check_end()  # half a megabyte is padding
    with BoundedFile.open(path) as file, pytest.raises(UnreadableInputError, match="ends after 3000000 bytes, 7 too"):
        file.read_exactly(3_000_007)
    with BoundedFile.open(path) as file, pytest.raises(UnreadableInputError, match="ends after 3000000 bytes"):
        file.skip_to(3_000_001)


def test_a_damaged_end_is_noticed(tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT, 1)
    for wrong in (packed[:-8] + bytes(8), packed[:-3]):
        (tmp_path / "f.gz").write_bytes(wrong)
        with BoundedFile.open(tmp_path / "f.gz") as file:
            assert file.read_exactly(len(CONTENT) - 1) == CONTENT[:-1]
            with pytest.raises((EOFError, gzip.BadGzipFile)):
                file.check_end()


def test_a_bomb_behind_a_small_volume_is_not_inflated(tmp_path: Path) -> None:
    volume = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**24)
    packed = packer.compress(volume) + b"".join(packer.compress(zeros) for _ in range(16)) + packer.flush()
    assert len(packed) < 2**19  # 256 MiB in half a megabyte
    (tmp_path / "bomb.nii.gz").write_bytes(packed)
    tracemalloc.start()
    with pytest.raises(UnreadableInputError, match="inflates to more than the 480 bytes that its header claims"):
        read_volume(tmp_path / "bomb.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
