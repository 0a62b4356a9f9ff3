# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from monai_anomalyclip.data import InputCatalogue, Source
from monai_anomalyclip.transforms import ScaleIntensityForCLIP
from monai_anomalyclip.writers.findings import Findings, finished_record, view_of
from monai_anomalyclip.writers.record import InputRecord, Timings, json_text

RNG = np.random.default_rng(0)
TIMINGS = {"read_s": 0.25, "score_s": 1.5, "write_s": 0.125}


def test_numbers_per_slice() -> None:
    maps = RNG.random((5, 6, 7)).astype(np.float32)
    masks = maps >= 0.7
    scores = RNG.random(5).astype(np.float32)
    findings = Findings.of(scores, maps, masks)
    for index in range(5):
        values = [float(value) for row in maps[index] for value in row]
        assert findings.map_max[index] == max(values)
        assert findings.area_fraction[index] == pytest.approx(sum(value >= np.float32(0.7) for value in values) / 42)
    assert findings.scores.dtype == np.float64
    assert findings.anomaly_score == float(max(scores))
    assert findings.anomalous_fraction == pytest.approx(masks.sum() / masks.size)


def test_parts_of_a_film_follow_each_other() -> None:
    maps = RNG.random((9, 4, 4)).astype(np.float32)
    scores = RNG.random(9)
    whole = Findings.of(scores, maps, maps > 0.5)
    parts = [Findings.of(scores[part], maps[part], maps[part] > 0.5) for part in (slice(4), slice(4, 5), slice(5, 9))]
    joined = parts[0].followed_by(parts[1]).followed_by(parts[2])
    for name in ("scores", "map_max", "area_fraction"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_peaks_are_the_highest_scores_and_then_the_highest_maps() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.9, 0.2, 0.9, 0.3, 0.4])
    map_max = np.array([0.1, 0.2, 0.9, 0.6, 0.1, 0.4, 0.1, 0.1])
    peaks = Findings(scores, map_max, np.zeros(8)).peaks()
    assert [peak.index for peak in peaks] == [3, 5, 1, 2, 7, 6]
    assert [peak.score for peak in peaks] == [0.9, 0.9, 0.9, 0.5, 0.4, 0.3]
    assert len(Findings(scores[:2], map_max[:2], np.zeros(2)).peaks()) == 2


def test_margins_tell_saturated_scores_apart() -> None:
    margins = np.array([20.0, 35.0, 25.0])
    findings = Findings(np.ones(3), np.array([0.9, 0.1, 0.5]), np.zeros(3), margins)
    assert [(peak.index, peak.margin) for peak in findings.peaks()] == [(1, 35.0), (2, 25.0), (0, 20.0)]
    assert findings.score_margin == 35.0
    assert findings.followed_by(findings).margins.tolist() == [*margins, *margins]  # type: ignore[union-attr]
    without = Findings(np.ones(3), np.zeros(3), np.zeros(3))
    assert (without.score_margin, without.followed_by(findings).margins) == (None, None)
    assert findings.slices().model_dump() == {
        "map_max": (0.9, 0.1, 0.5), "area_fraction": (0.0, 0.0, 0.0), "margin": (20.0, 35.0, 25.0),
        "instance_number": (), "position_mm": (),
    }  # fmt: skip


def test_slices_of_dicom_can_be_found_in_an_archive(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=4, origin=(0, 0, -7.5), spacing=2.5, instance_numbers="reversed")
    source = source_at(tmp_path)
    record = record_of(source)
    assert [(peak.index, peak.instance_number, peak.position_mm) for peak in record.most_suspicious] == [
        (3, 1, 0.0), (2, 2, -2.5), (1, 3, -5.0), (0, 4, -7.5),
    ]  # fmt: skip
    slices = Findings(np.ones(3), np.ones(3), np.ones(3)).slices(source)  # of a film that ended early
    assert (slices.instance_number, slices.position_mm) == ((4, 3, 2), (-7.5, -5.0, -2.5))


def test_volume_in_millilitres() -> None:
    masks = np.zeros((10, 20, 30), bool)
    masks[2:5, 4:10, 3:8] = True  # 90 voxels of 0.5 x 0.5 x 4 mm
    findings = Findings.of(np.zeros(10), masks.astype(np.float32), masks)
    assert findings.volume_ml(0.5 * 0.5 * 4, 600) == pytest.approx(0.09)
    assert findings.volume_ml(None, 600) is None


def source_at(path: Path, **options: Any) -> Source:
    (source,) = InputCatalogue(path, options=options).sources.values()
    return source


def record_of(source: Source, slice_axis: int | str = "auto", **options: Any) -> InputRecord:
    """The record of an input in which the first 10 pixels of every slice are anomalous."""
    image = ScaleIntensityForCLIP()(source.load())
    assert isinstance(image, MetaTensor)
    view = None if source.kind == "frame" else view_of(source, image, slice_axis)
    count, shape = (1, image.shape[1:]) if view is None else (view.n_slices, view.slice_shape)
    masks = np.zeros((count, shape[0] * shape[1]), bool)
    masks[:, :10] = True
    maps = np.linspace(0.1, 0.9, count)[:, None, None] * np.ones(tuple(shape), np.float32)
    findings = Findings.of(np.linspace(0.2, 0.8, count), maps, masks.reshape(maps.shape))
    rest = {"notes": [], "outputs": ["r_overlay.jpg"], **options}
    record = finished_record("r", source, image, view, findings, 0.5, TIMINGS, **rest)
    assert InputRecord.model_validate_json(json_text(record)) == record
    return record


@pytest.mark.parametrize(
    ("orientation", "plane"), [("axial", "axial"), ("sagittal", "sagittal"), ("coronal", "coronal")]
)
def test_series(phantoms: ModuleType, tmp_path: Path, orientation: str, plane: str) -> None:
    phantoms.make_series(tmp_path, count=5, size=(16, 20), spacing=3, pixel_spacing=(0.8, 0.5), orientation=orientation)
    record = record_of(source_at(tmp_path, preset="ct-lung"))
    assert (record.name, record.status) == ("r", "ok")
    assert (record.source, record.kind, record.modality) == ("dicom", "volume", "CT")
    assert (record.files_used, record.frames, record.slice_axis, record.plane) == (5, 5, 2, plane)
    assert record.geometry.model_dump(mode="json") == {
        "verdict": "regular",
        "spacing": [0.8, 0.5],
        "spacing_source": record.geometry.spacing_source,  # type: ignore[union-attr]
        "slice_spacing": pytest.approx(3),
        "missing_slices": 0,
        "tilt_degrees": pytest.approx(0, abs=1e-3),
    }
    assert "Pixel Spacing" in str(record.geometry.spacing_source)  # type: ignore[union-attr]
    assert list(record.transfer_syntaxes) == ["Explicit VR Little Endian"]
    assert record.intensity is not None
    # W 1500, C -600 by PS3.3 C.11.2.1.2.1: from C - 0.5 - (W - 1) / 2 to C - 0.5 + (W - 1) / 2.
    assert (record.intensity.preset, record.intensity.low, record.intensity.high) == ("ct-lung", -1350, 149)
    assert (record.threshold, record.threshold_source) == (0.5, "setting of the run")
    assert record.scores == pytest.approx(list(np.linspace(0.2, 0.8, 5)))
    assert (record.anomaly_score, record.map_max) == (pytest.approx(0.8), pytest.approx(0.9))
    assert (record.most_suspicious[0].index, record.most_suspicious[0].score) == (4, 0.8)
    assert record.anomalous_fraction == pytest.approx(10 / 320)
    assert record.anomalous_volume_ml == pytest.approx(5 * 10 * 0.8 * 0.5 * 3 / 1000)
    assert record.timings == Timings(**TIMINGS)
    assert list(record.times) == []
    assert phantoms.CANARY not in json_text(record)
    assert str(tmp_path) not in json_text(record)


def test_odd_stacks(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "tilt", count=4, tilt=20)
    record = record_of(source_at(tmp_path / "tilt"))
    assert record.geometry is not None
    assert record.geometry.verdict == "gantry tilt"
    assert record.geometry.tilt_degrees == pytest.approx(20, abs=0.1)
    # A sheared voxel is as large as an upright one: area times the distance along the normal.
    assert record.anomalous_volume_ml == pytest.approx(4 * 10 * 0.8 * 0.5 * 3 / 1000, rel=1e-4)

    phantoms.make_series(tmp_path / "gap", count=6, gap=[2, 3], transfer_syntax=RLELossless)
    record = record_of(source_at(tmp_path / "gap"))
    assert record.geometry is not None
    assert (record.geometry.verdict, record.geometry.missing_slices) == ("gaps", 2)
    assert record.anomalous_volume_ml is None
    assert list(record.transfer_syntaxes) == ["RLE Lossless"]


def test_split_series(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=2, modality="MR", echoes=(10, 20), transfer_syntax=ImplicitVRLittleEndian)
    records = [record_of(source) for source in InputCatalogue(tmp_path).sources.values()]
    for record, time in zip(records, (10, 20), strict=True):
        assert str(record.split).startswith(f"echo time {time}")
    assert list(records[0].transfer_syntaxes) == ["Implicit VR Little Endian"]


def test_single_pictures_have_no_volume(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "dx", count=1, positioned=False, modality="DX")
    record = record_of(source_at(tmp_path / "dx"))
    assert (record.kind, record.modality, record.slice_axis, record.plane) == ("frame", "DX", None, None)
    assert record.geometry is not None
    assert record.geometry.verdict == "no position"
    assert record.anomalous_volume_ml is None
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    record = record_of(source_at(tmp_path / "a.png"))
    assert (record.source, record.kind, record.modality, record.geometry) == ("frame", "frame", None, None)
    assert (record.frames, record.anomalous_fraction) == (1, pytest.approx(10 / 72))


def test_cine(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_cine(tmp_path, count=3)
    record = record_of(source_at(tmp_path), times=[0.0, 0.04, 0.08], outputs=["r_overlay.mp4", "r_frames.csv"])
    assert (record.kind, record.frames, record.slice_axis, record.plane) == ("cine", 3, None, None)
    assert list(record.times) == [0.0, 0.04, 0.08]
    assert record.anomalous_volume_ml is None
    assert list(record.outputs) == ["r_overlay.mp4", "r_frames.csv"]


@pytest.mark.parametrize(("slice_axis", "axis", "plane"), [("auto", 2, "axial"), (0, 0, "sagittal"), (1, 1, "coronal")])
def test_nifti(tmp_path: Path, slice_axis: int | str, axis: int, plane: str) -> None:
    spacing = (0.5, 0.75, 4.0)
    nib.save(
        nib.Nifti1Image(np.arange(1000, dtype=np.float32).reshape(10, 10, 10), np.diag([*spacing, 1])),
        tmp_path / "v.nii",
    )
    record = record_of(source_at(tmp_path), slice_axis)
    assert (record.source, record.kind, record.modality) == ("nifti", "volume", None)
    assert (record.slice_axis, record.plane) == (axis, plane)
    assert record.geometry is not None
    assert record.geometry.verdict == "regular"
    assert record.geometry.slice_spacing == pytest.approx(spacing[axis])
    assert sorted(record.geometry.spacing or ()) == pytest.approx(sorted(set(spacing) - {spacing[axis]}))
    assert record.anomalous_volume_ml == pytest.approx(10 * 10 * 0.5 * 0.75 * 4 / 1000)
    assert list(record.transfer_syntaxes) == []


def test_sheared_nifti_says_so(tmp_path: Path) -> None:
    affine = np.array([[1, 0, 1.0, 0], [0, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.arange(1000, dtype=np.float32).reshape(10, 10, 10), None)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    nib.save(image, tmp_path / "v.nii")
    record = record_of(source_at(tmp_path))
    assert record.geometry is not None
    assert record.geometry.verdict == "sheared"
    assert record.anomalous_volume_ml == pytest.approx(10 * 10 * 3 / 1000)  # 1 x 1 x 3 mm


def test_warnings_are_those_of_reader_scaling_and_writer_each_once(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    source = source_at(tmp_path / "a.png")
    intensity = {"preset": "none", "low": 0, "high": 255, "reason": "a picture", "warnings": ["Odd."], "more": 1}
    image = MetaTensor(torch.zeros(3, 8, 9), meta={"intensity": json.dumps(intensity), "notes": "Noted."})
    findings = Findings(np.array([0.5]), np.array([0.5]), np.array([0.0]))
    record = finished_record("r", source, image, None, findings, 0.5, TIMINGS, ["Left out.", "Odd."], [])
    assert list(record.warnings) == ["Odd.", "Noted.", "Left out."]
    assert record.intensity.model_dump() == {"preset": "none", "low": 0, "high": 255, "reason": "a picture"}
    plain = finished_record("r", source, torch.zeros(3, 8, 9), None, findings, 0.5, TIMINGS, [], [])
    assert (plain.intensity, plain.warnings) == (None, ())


def test_private_transfer_syntaxes_show_no_uid(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path, count=1)
    source = source_at(tmp_path)
    object.__setattr__(source.series.instances[0], "transfer_syntax", "1.2.840.113619.5.2")  # type: ignore[attr-defined]
    image = torch.zeros(1, 20, 16, 1)
    findings = Findings(np.array([0.5]), np.array([0.5]), np.array([0.0]))
    record = finished_record("r", source, image, view_of(source, image, "auto"), findings, 0.5, TIMINGS, [], [])
    assert list(record.transfer_syntaxes) in (["private transfer syntax"], ["GE Private Implicit VR Big Endian"])
    assert "113619" not in json_text(record)
