# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The whole loop with a real Orthanc, by DICOMweb."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
from pydicom.uid import RLELossless

from monai_anomalyclip.archive.dicomweb import ArchiveError, DicomWebArchive
from monai_anomalyclip.archive.results import SeriesResults
from monai_anomalyclip.archive.transfer import LeftOut, transfer
from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun, WorkDone
from tests.archive.orthanc_loop import images
from tests.archive.scenes import identifiers, scene
from tests.archive.web_archive import WebArchive, served


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


def damage(path: Path) -> None:
    image = pydicom.dcmread(path)
    image.PixelData = image.PixelData[:-100]
    image.save_as(path)


def test_what_is_left_out_is_not_fetched_again(phantoms: ModuleType, tmp_path: Path, warm: WarmRun) -> None:
    """Of four series one is whole, one without any image that can be read, one with a file that is none."""
    for name in ("whole", "damaged", "partly"):
        phantoms.make_series(tmp_path / name, count=3, size=(16, 20), seed=name)
    for path in images(tmp_path / "damaged"):
        damage(path)
    odd = pydicom.dcmread(images(tmp_path / "partly")[0])
    odd.SOPInstanceUID = odd.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    del odd.PixelData, odd.Rows
    odd.save_as(tmp_path / "partly" / "odd.dcm")
    phantoms.make_series(tmp_path / "scout", count=1, size=(16, 20), localizer=True, seed="scout")
    web = WebArchive(images(tmp_path))
    with served(web) as url:
        archive = DicomWebArchive(url)

        def once() -> tuple[Counter[str], int]:
            web.asked.clear()
            done = transfer(archive, archive, {"Modality": "CT"}, warm, LeftOut(tmp_path / "left_out.jsonl"))
            assert done.problems == []
            return done.counts, len(web.fetched())

        assert once() == ({"scored": 2, "failed": 1, "nothing to score": 1}, 4)
        assert sorted(web.modalities()) == ["CT"] * 11 + ["SEG"] * 2 + ["SR"] * 2
        assert once() == ({"done": 2, "failed": 1, "nothing to score": 1}, 0)


def test_what_the_next_run_is_to_do(
    phantoms: ModuleType, tmp_path: Path, warm: WarmRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trouble once, of the first or the second of two studies; nothing is noted, nothing is stored."""
    for name in ("a", "b"):
        phantoms.make_series(tmp_path / name, count=3, size=(16, 20), seed=name, study=name)
    web = WebArchive(images(tmp_path))
    left = LeftOut(tmp_path / "left_out.jsonl")
    changed = "A series changed while it was read, or failed for a reason that may pass."

    def no_space(*_: object) -> SeriesResults:
        raise PermissionError(13, "CANARY^NAME")

    def may_pass(*_: object) -> SeriesResults:
        return SeriesResults((), WorkDone(failed={"ct": "no memory"}, passing=frozenset({"ct"})))

    with served(web) as url:
        archive = DicomWebArchive(url)

        def once() -> tuple[Counter[str], list[str]]:
            done = transfer(archive, archive, {}, warm, left)
            return done.counts, done.problems

        web.withheld = {str(one.SOPInstanceUID) for one in web.objects() if one.InstanceNumber == 1}
        assert once() == ({"again": 2}, [changed])
        order = [path.split("/")[3] for path in web.fetched()]
        web.status = lambda method, path: 500 * path.endswith(f"/{order[1]}/series")  # while it is searched
        assert once() == ({"again": 2}, [changed, "The archive answered 500 (Internal Server Error)."])
        web.status = lambda method, path: 500 * path.endswith(f"/{order[0]}/series")  # before there is anything
        with pytest.raises(ArchiveError, match="answered 500"):
            once()
        web.withheld, web.status = set(), lambda method, path: 0
        monkeypatch.setattr("monai_anomalyclip.archive.transfer.score_series", no_space)
        assert once() == ({"again": 2}, ["PermissionError on this machine."])
        monkeypatch.setattr("monai_anomalyclip.archive.transfer.score_series", may_pass)
        assert once() == ({"again": 2}, [changed])
    assert not left.path.exists()
    assert len(web.files) == 6
