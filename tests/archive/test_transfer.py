# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The whole loop with a real Orthanc, by DICOMweb."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
from pydicom.uid import RLELossless

from monai_anomalyclip.archive.transfer import LeftOut
from monai_anomalyclip.scale.warm_run import RunOptions
from tests.archive.scenes import identifiers, scene


def test_archive_by_dicomweb(phantoms: ModuleType, tmp_path: Path, options: RunOptions) -> None:
    phantoms.make_series(tmp_path / "ct", count=4, size=(32, 40))
    phantoms.make_series(tmp_path / "loc", count=1, size=(32, 40), localizer=True, seed="loc")
    shutil.copytree(tmp_path / "ct", tmp_path / "rle")
    for path in (tmp_path / "rle").rglob("*.dcm"):
        image = pydicom.dcmread(path)
        image.compress(RLELossless, generate_instance_uid=False)
        image.save_as(path)
    seen = scene("web", tmp_path, options)
    assert seen["first"] == [{"scored": 1, "nothing to score": 1}, 4 + 2, []]  # SEG and SR
    assert seen["second"] == [{"done": 1, "nothing to score": 1}, 6, []]
    assert seen["modalities"] == {"CT": 2, "SEG": 1, "SR": 1}
    assert seen["grown"] == [{"scored": 1, "nothing to score": 1}, 7 + 2, []]  # of another set of images
    assert seen["predecessors"] == [0, 1]  # the new report names the old one
    assert seen["grown again"] == [{"done": 1, "nothing to score": 1}, 9, []]
    assert seen["transcoded"][0] == {"scored": 1}
    assert seen["same uid"]
    assert seen["gone"] == "The archive cannot be reached (ConnectionError)."
    assert seen["401"].startswith("The archive answered 401 (Unauthorized): put name and password into ~/.netrc")
    assert "monai_anomalyclip" in seen["said"]  # our own log was on
    assert [text for text in identifiers(tmp_path / "ct") if text in seen["said"]] == []
    assert "/dicom-web/" not in seen["said"]


@pytest.mark.nightly
def test_an_archive_that_vanishes_in_the_middle(phantoms: ModuleType, tmp_path: Path, options: RunOptions) -> None:
    """What is left of the work is counted, and done by the next run."""
    phantoms.make_series(tmp_path / "one", count=4, size=(32, 40))
    phantoms.make_series(tmp_path / "two", count=3, size=(32, 40), seed="two")
    seen = scene("vanish", tmp_path, options)
    gone = "The archive cannot be reached (ConnectionError)."
    assert seen["During"][0] == seen["Afterwards"][0] == {"again": 2}
    assert seen["Afterwards"][1] == [gone]
    assert seen["DicomWebArchive"] == [{"scored": 2}, []]
    assert seen["modalities"] == {"CT": 2, "SEG": 2, "SR": 2}
    assert [text for text in identifiers(tmp_path) if text in seen["said"]] == []


def test_what_is_noted_stays(tmp_path: Path) -> None:
    path = tmp_path / "state" / "left_out.jsonl"
    left = LeftOut(path)
    assert left.reason("a") is None
    left.note("a", "nothing to score")
    left.note("b", "failed")
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("a") as stream:
        stream.write('{"key": "c", "rea')  # the power failed
    read = LeftOut(path)
    assert [read.reason(key) for key in "abc"] == ["nothing to score", "failed", None]
    path.write_text("my notes")
    with pytest.raises(ValueError, match=r"'left_out\.jsonl' is not a list"):
        LeftOut(path)
