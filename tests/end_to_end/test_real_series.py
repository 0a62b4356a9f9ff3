# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.data import load_input

SIZE = (64, 64)

GROUND_TRUTH = (
    "anatomical/001", "anatomical/001_implicit", "failing/slicecount/001", "ge/anatomical/001",
    "ge/anatomical/001_implicit", "ge/anatomical/001_single_slice", "ge/dti/001", "ge/dti/001_implicit",
    "generic/anatomical/001", "generic/anatomical/001_implicit", "generic/anatomical/002_non_isotropic",
    "generic/compressed/001", "generic/compressed_j2k/001", "generic/compressed_jpeg/001",
    "generic/compressed_jpegls/001", "generic/compressed_rle/001", "generic/rgb/001", "hitachi/anatomical/001",
    "hitachi/anatomical/001_implicit", "philips_enhanced/anatomical/001", "philips_enhanced/anatomical/001_implicit",
)  # fmt: skip
"""Regular series with the volume that icometrix's dicom2nifti makes of them beside them."""

FAILING = {
    "gantrytilting/001": ["gantry tilt"],
    "notavolume/001": ["duplicate positions"],
    "slicecount/001": ["regular"],
    "sliceincrement/001": ["gaps"],
    "sliceincrement/002": ["gaps + gantry tilt"],
    "sliceorientation/001": ["regular", "regular"],
}
"""Verdicts on the stacks that dicom2nifti refuses. Two slices are few to it; two orientations are two stacks to us."""

LOSSLESS = ("1.2.1", "1.2", "1.2.2", "1.2.1.99", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5")
LOSSY = ("1.2.4.50", "1.2.4.51", "1.2.4.53", "1.2.4.55", "1.2.4.81", "1.2.4.91")


@pytest.fixture(scope="module")
def dicom(real_data: Path) -> Path:
    return real_data / "dicom"


@pytest.fixture(scope="module")
def series_folders(dicom: Path) -> list[Path]:
    """All folders of the real data that hold DICOM files."""
    folders = [path for path in [dicom, *dicom.rglob("*")] if path.is_dir()]
    return sorted(folder for folder in folders if any(_is_dicom(path) for path in folder.iterdir()))


def _is_dicom(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[128:132] == b"DICM"


def facts(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    """What ``inspect`` tells of the inputs in a folder."""
    main(["inspect", str(folder), "--json", *options])
    inputs: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["inputs"]
    return inputs


def test_every_series_is_processed(
    series_folders: list[Path], quick_config: Callable[..., Path], predict: Callable[..., int], tmp_path: Path
) -> None:
    """One run over all of them, as over one tree of studies."""
    options = ("--outputs", "seg,sr")
    assert predict(series_folders, tmp_path / "out", *options, config=quick_config(SIZE)) == 0
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    records = document["inputs"]
    assert document["summary"]["failed"] == 0
    assert len(records) >= 40
    volumes = [record for record in records if record["kind"] == "volume"]
    films = [record for record in records if record["kind"] == "cine"]
    for record in records:
        assert np.isfinite(record["anomaly_score"])
        endings = {output.removeprefix(f"{record['name']}_") for output in record["outputs"]}
        assert ("overlay.mp4" if record in films else "sr.dcm") in endings
    for record in volumes:
        assert (tmp_path / "out" / f"{record['name']}_seg.dcm").is_file()
    assert {"regular", "single slice", "gaps", "gantry tilt", "duplicate positions", "gaps + gantry tilt",
            "irregular spacing + gantry tilt"} == {record["geometry"]["verdict"] for record in volumes}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_verdicts_are_what_the_folders_say(dicom: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    found = facts(dicom / "dicom2nifti" / "failing" / name, capsys)
    assert [fact["geometry"] for fact in found] == FAILING[name]
    assert not any(fact["problem"] for fact in found)


def test_tilted_head_ct(dicom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fact,) = facts(dicom / "dcm_qa" / "ct_ge_tilt", capsys)
    assert (fact["geometry"], fact["frames"]) == ("irregular spacing + gantry tilt", 28)


@pytest.mark.parametrize("name", GROUND_TRUTH)
def test_values_lie_where_the_ground_truth_has_them(
    dicom: Path,
    quick_config: Callable[..., Path],
    predict: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    """Through the whole run: voxel by voxel at the same millimetres, the map is the ground truth's scaled value."""
    folder = dicom / "dicom2nifti" / name
    truth = nib.load(folder.parent / f"{folder.name}_ground_truth.nii.gz")
    listed = facts(folder, capsys, "--show-uids")
    sizes = {tuple(map(int, fact["size"].split(" x "))) for fact in listed}
    left_out = {fact["series"] for fact in listed if fact["geometry"].startswith("left out")}
    options = [option for uid in left_out for option in ("--series", uid)]
    assert predict(folder, tmp_path / "out", "--outputs", "nifti", *options, config=quick_config(*sizes)) == 0
    records = json.loads((tmp_path / "out" / "results.json").read_text())["inputs"]
    volumes = _volumes(truth)
    assert len(records) == len(volumes)
    for record in records:
        image = nib.load(tmp_path / "out" / f"{record['name']}_map.nii.gz")
        found = np.asarray(image.dataobj)
        indices = np.argwhere(np.ones(found.shape, bool))
        theirs = nib.affines.apply_affine(np.linalg.inv(truth.affine) @ image.affine, indices)
        rounded = np.rint(theirs).astype(int)
        assert np.abs(theirs - rounded).max() < 0.05  # voxels
        assert (rounded >= 0).all()
        assert (rounded < volumes[0].shape).all()
        assert len(np.unique(rounded, axis=0)) == volumes[0].size
        low, high = record["intensity"]["low"], record["intensity"]["high"]
        expected = [np.clip((volume[tuple(rounded.T)] - low) / (high - low), 0, 1) for volume in volumes]
        differences = [np.abs(found.ravel() - values).max() for values in expected]
        assert min(differences) < 2e-3


def _volumes(image: nib.Nifti1Image) -> list[np.ndarray]:
    """The volumes of a file as real numbers; of colours the mean."""
    data = np.asanyarray(image.dataobj)
    if data.dtype.names:
        data = np.mean([data[name].astype(float) for name in "RGB"], axis=0)
    data = data.reshape(*data.shape[:3], -1).astype(float)
    return [data[..., index] for index in range(data.shape[3])]


def test_rewritten_headers_change_nothing(
    dicom: Path, quick_config: Callable[..., Path], predict: Callable[..., int], tmp_path: Path
) -> None:
    """Four time points from the scanner, and as an archive gave them back."""
    found = []
    for name in ("Agfa", "Siemens"):
        output = tmp_path / name
        assert predict(dicom / "dcm_qa" / "agfa" / name, output, "--outputs", "nifti", config=quick_config(SIZE)) == 0
        maps = [nib.load(path) for path in output.glob("*_map.nii.gz")]  # whose names differ with the UIDs
        found.append(sorted(maps, key=lambda image: float(np.asarray(image.dataobj).mean())))
    assert len(found[0]) == 4
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.affine, other.affine, atol=1e-3)
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY])
def test_one_slice_in_all_transfer_syntaxes(dicom: Path, syntax: str) -> None:
    folder = dicom / "cornerstone_wado"
    (path,) = folder.glob(f"CTImage.dcm_*_1.2.840.10008.{syntax}.dcm")
    assert pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.endswith(syntax)
    plain = pydicom.dcmread(next(folder.glob("CTImage.dcm_LittleEndianExplicit*")))
    values = plain.pixel_array * float(plain.RescaleSlope) + float(plain.RescaleIntercept)
    expected = np.clip((values + 160) / 399, 0, 1)  # the window 400/40 (DICOM PS3.3 equation C.11-1)
    difference = np.abs(load_input(path, {"preset": "ct-soft"})[0, ..., 0].numpy().T - expected)
    if syntax in LOSSLESS:
        assert difference.max() < 1e-5
    else:
        assert difference.mean() < 0.03
