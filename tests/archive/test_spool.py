# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import ModuleType

import pytest

from monai_anomalyclip.archive.results import Predecessor
from monai_anomalyclip.archive.spool import Spool, StudyState, is_image


def test_images_are_kept_whole_and_once(phantoms: ModuleType, tmp_path: Path) -> None:
    files = [path.read_bytes() for path in phantoms.make_series(tmp_path / "ct", count=3, size=(16, 20))]
    other = phantoms.make_series(tmp_path / "mr", count=1, size=(16, 20), modality="MR", seed="mr")[0].read_bytes()
    spool = Spool(tmp_path / "spool")
    for file in (*files, files[0], other):
        assert spool.put(file)
    studies = list(Spool(tmp_path / "spool").studies())  # also after a restart
    assert sum(study.count() for study in studies) == 4
    kept = [path for study in studies for path in study.images.iterdir()]
    assert sorted(path.read_bytes() for path in kept) == sorted([*files, other])
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
    assert not any(phantoms.CANARY in str(path) for path in kept)
    before = {path: path.stat().st_mtime_ns for path in kept}
    spool.put(files[0])  # forwarded once more: the study does not begin to wait anew
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_killed_while_an_image_is_written(
    phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not acknowledged, and is not there after the restart; what was there before stays."""
    first, second = (path.read_bytes() for path in phantoms.make_series(tmp_path / "ct", count=2, size=(16, 20)))
    spool = Spool(tmp_path / "spool")
    spool.put(first)
    if (child := os.fork()) == 0:
        monkeypatch.setattr(os, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        spool.put(second)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    (study,) = spool.studies()
    assert len(list(study.images.iterdir())) == 2
    assert study.count() == 1
    Spool(tmp_path / "spool")
    assert [path.read_bytes() for path in study.images.iterdir()] == [first]


def test_a_full_disk_and_what_is_no_image(
    phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = phantoms.make_series(tmp_path / "ct", count=1, size=(16, 20))[0].read_bytes()
    spool = Spool(tmp_path / "spool")
    with pytest.raises(Exception, match="DICOM"):
        spool.put(b"no DICOM at all")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 2**20))  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="full"):
            spool.put(file)
    assert list(spool.studies()) == []
    classes = {
        "1.2.840.10008.5.1.4.1.1.2": True,  # CT
        "1.2.840.10008.5.1.4.1.1.2.1": True,  # enhanced CT
        "1.2.840.10008.5.1.4.1.1.128": True,  # PET
        "1.2.840.10008.5.1.4.1.1.77.1.1.1": True,  # endoscopy, video
        "1.2.840.10008.5.1.4.1.1.7": False,  # secondary capture
        "1.2.840.10008.5.1.4.1.1.7.4": False,  # of several frames
        "1.2.840.10008.5.1.4.1.1.66.4": False,  # segmentation
        "1.2.840.10008.5.1.4.1.1.88.34": False,  # report
        "1.2.840.10008.5.1.4.1.1.30": False,  # parametric map
        "1.2.3": False,
    }
    assert {uid: is_image(uid) for uid in classes} == classes


def test_state_of_a_study(tmp_path: Path) -> None:
    state = StudyState({"g": "k"}, {"g": [Predecessor("1.2", "1.3", "1.4", "1.5")]}, 2)
    assert StudyState.from_json(state.to_json()) == state
    for damaged in ("", "[]", "{}", '{"keys": 1, "reports": {}, "tried": 0}', '{"keys": {}, "reports": {"g": [1]}}'):
        assert StudyState.from_json(damaged) == StudyState()
