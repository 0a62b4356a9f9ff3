# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_anomalyclip.app.accepted import export_accepted
from monai_anomalyclip.app.findings import Decision, Review
from monai_anomalyclip.writers.output_folder import OutputFolder
from tests.app.conftest import Scored


def test_what_was_accepted_and_nothing_else(scored: Callable[[], Scored], tmp_path: Path) -> None:
    _, study, masks = scored()
    review = Review(study.folder / "review.json")
    volume = next(name for name, mask in masks.items() if mask.ndim == 3)
    picture = next(name for name, mask in masks.items() if mask.ndim == 2)
    state = study.state(volume)
    assert state is not None
    review.decide(state, 2, Decision(verdict="accepted", note="=1+1"), 0)
    review.decide(state, 1, Decision(verdict="rejected", note="artefact"), review.revision)
    with zipfile.ZipFile(export_accepted(study, review)) as archive:
        archive.extractall(tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "NOTICE.txt", "findings.csv", f"{volume}_accepted_mask.nii.gz", f"{volume}_accepted_seg.dcm",
        f"{volume}_accepted_sr.dcm",
    }  # fmt: skip
    expected = masks[volume].copy()
    expected[..., 3] = False  # the rejected region
    mask = nib.load(tmp_path / "out" / f"{volume}_accepted_mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), expected)
    assert np.allclose(mask.affine, nib.load(study.results / f"{volume}_mask.nii.gz").affine)
    # The segmentation lies on the frames of the source, by its own references.
    seg = hd.seg.segread(tmp_path / "out" / f"{volume}_accepted_seg.dcm")
    headers = [pydicom.dcmread(path) for path in sorted((study.sent / "ct").iterdir())]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    pixels = seg.get_pixels_by_source_instance([header.SOPInstanceUID for header in headers], combine_segments=True)
    assert pixels.shape == (5, 40, 48)
    assert np.array_equal(pixels.astype(bool), expected.transpose(2, 1, 0)) or np.array_equal(
        pixels[::-1].astype(bool), expected.transpose(2, 1, 0)
    )
    assert seg.StudyInstanceUID == headers[0].StudyInstanceUID
    # The report names the accepted finding alone, and the slices that it lies on.
    report = hd.sr.srread(tmp_path / "out" / f"{volume}_accepted_sr.dcm")
    _, finding = report.content.get_image_measurement_groups()
    assert finding.tracking_identifier == "finding 2"
    shown = {item.name.meaning: (item.value, item.unit.value) for item in finding.get_measurements()}
    assert shown.keys() == {"Anomaly map value", "Volume"}
    assert shown["Anomaly map value"] == (pytest.approx(0.7, abs=1e-3), "1")
    spacing = [float(value) for value in headers[0].PixelSpacing]
    between = abs(float(headers[1].ImagePositionPatient[2]) - float(headers[0].ImagePositionPatient[2]))
    assert shown["Volume"] == (pytest.approx(5 * 10 * 2 * spacing[0] * spacing[1] * between / 1000, rel=1e-3), "ml")
    marked = {headers[index].SOPInstanceUID for index in np.flatnonzero(pixels.any(axis=(1, 2)))}
    assert {image.referenced_sop_instance_uid for image in finding.source_images} == marked
    assert "=1+1" in report.to_json()
    assert "artefact" not in report.to_json()
    with (tmp_path / "out" / "findings.csv").open(newline="") as table:
        rows = {(row["name"], row["finding"]): row for row in csv.DictReader(table)}
    assert len(rows) == 3
    assert rows[volume, "1"]["verdict"] == "rejected"
    assert rows[volume, "2"]["note"] == "'=1+1"  # no formula for a spreadsheet
    assert rows[picture, "1"]["verdict"] == "open"
    assert rows[volume, "1"]["instance_number"]
    # A second export holds the new decisions alone.
    state = study.state(picture)
    assert state is not None
    review.decide(state, 1, Decision(verdict="accepted"), review.revision)
    with zipfile.ZipFile(export_accepted(study, review)) as archive:
        drawn = np.asarray(Image.open(io.BytesIO(archive.read(f"{picture}_accepted_mask.png"))))
    assert np.array_equal(drawn > 0, masks[picture])


def test_results_without_a_mask_are_accepted_as_a_whole(scored: Callable[[], Scored]) -> None:
    """Segmentation and report are the run's own; and one without a record of its settings gets no new segmentation."""
    _, study, masks = scored()
    volume = next(name for name, mask in masks.items() if mask.ndim == 3)
    study.change(names=(*study.record.names, "not_scored"))
    state = study.state(volume)
    assert state is not None
    assert state.record is not None
    review = Review(study.folder / "review.json")

    def exported(number: int, **changes: Any) -> set[str]:
        changed = state.model_copy(update=changes)
        OutputFolder(study.results).put(changed)
        review.decide(changed, number, Decision(verdict="accepted"), review.revision)
        with zipfile.ZipFile(export_accepted(study, review)) as archive:
            names = set(archive.namelist()) - {"NOTICE.txt", "findings.csv"}
            for name in names & set(state.record.outputs if state.record else ()):
                assert archive.read(name) == (study.results / name).read_bytes()
            table = list(csv.DictReader(io.StringIO(archive.read("findings.csv").decode())))
        (row,) = (row for row in table if row["verdict"] == "accepted")
        assert row["finding"] == ("all" if number == 0 else "1")
        return names

    assert exported(1, made_with=None) == {f"{volume}_accepted_mask.nii.gz"}
    review = Review(study.folder / "another.json")
    outputs = tuple(path for path in state.record.outputs if not path.endswith(".nii.gz"))
    record = state.record.model_copy(update={"outputs": outputs})
    assert exported(0, record=record) == {f"{volume}_seg.dcm", f"{volume}_sr.dcm"}
