# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
from PIL import Image

from monai_anomalyclip.app.accepted import export_accepted
from monai_anomalyclip.app.review import Decision, Review
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
        f"{volume}_sr.dcm",
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
