# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom import Provenance, write_segmentation
from monai_anomalyclip.writers.result_files import check_size, silenced


def test_private_complete_and_not_overwritten(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, write_all: Callable[..., dict[str, Path]]
) -> None:
    paths = write_all(stacks["regular"], tmp_path, provenance)
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())  # no temporary file is left
    before = {path: path.read_bytes() for path in paths.values()}
    for path in paths.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    with pytest.raises(FileExistsError, match=r"sr\.dcm"):
        write_all(stacks["regular"], tmp_path, provenance)
    assert {path: path.read_bytes() for path in paths.values()} == before
    write_all(stacks["regular"], tmp_path, provenance, overwrite=True)
    assert all(path.read_bytes() != content for path, content in before.items())


def test_failed_write_leaves_nothing(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Dataset, stream: object, **options: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(Dataset, "save_as", fail)
    mask = np.ones((6, 16, 20), np.uint8)
    with pytest.raises(OSError, match="disk full"):
        write_segmentation(stacks["regular"], mask, tmp_path / "seg.dcm", provenance=provenance)
    assert not list(tmp_path.iterdir())


def test_size_of_one_element() -> None:
    check_size(2**32 - 2)
    with pytest.raises(ValueError, match="4 GiB"):
        check_size(2**32)


def test_libraries_are_silent_inside_and_as_before_outside(caplog: pytest.LogCaptureFixture) -> None:
    ours = logging.getLogger("monai_anomalyclip.test")
    theirs = [logging.getLogger(name) for name in ("highdicom", "highdicom.base", "pydicom")]
    theirs[0].setLevel(logging.INFO)

    @silenced()
    def speak() -> None:
        for logger in theirs:
            logger.error("CANARY")
        warnings.warn("CANARY", stacklevel=1)
        ours.error("kept")

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            speak()
            with pytest.raises(ValueError, match="kept"), silenced():
                raise ValueError("kept")
        assert not caught
        assert [record.message for record in caplog.records] == ["kept"]
        theirs[1].info("heard again")
        assert caplog.records[-1].message == "heard again"
    finally:
        theirs[0].setLevel(logging.NOTSET)
