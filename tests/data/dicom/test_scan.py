# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import RLELossless

from monai_anomalyclip.data.dicom import Scan, SkippedFile, scan_files


def study(phantoms: ModuleType, root: Path) -> None:
    """A tree as a PACS exports it: two series, a localizer, objects that are no images, and other files."""
    phantoms.make_series(root / "st 1" / "se1", count=5)
    phantoms.make_series(root / "st 1" / "se2", count=3, seed="b", modality="MR")
    phantoms.make_series(root / "st 1", count=1, seed="loc", localizer=True)
    phantoms.make_object(root / "st 1" / "sr", "1.2.840.10008.5.1.4.1.1.88.33", "SR")
    (root / "st 1" / "README").write_text("nothing")
    (root / "viewer").mkdir()
    (root / "viewer" / "index.html").write_text("<html></html>")
    (root / "viewer" / "empty").write_bytes(b"")
    for index, path in enumerate(sorted((root / "st 1" / "se1").iterdir())):
        path.rename(path.with_name(f"IM{index}"))  # no suffix


def test_a_tree_is_scanned_and_every_file_accounted_for(phantoms: ModuleType, tmp_path: Path) -> None:
    study(phantoms, tmp_path)
    scan = scan_files([tmp_path])
    assert isinstance(scan, Scan)
    assert Counter(str(instance.header.Modality) for instance in scan.instances) == {"CT": 6, "MR": 3}
    assert Counter(file.code for file in scan.skipped) == {"structured report": 1, "not DICOM": 3}
    everything = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {file.path for file in (*scan.instances, *scan.skipped)} == everything
    assert all(file.detail.endswith(".") for file in scan.skipped)


def test_result_does_not_depend_on_how_the_files_are_given(phantoms: ModuleType, tmp_path: Path) -> None:
    study(phantoms, tmp_path)
    expected = scan_files([tmp_path])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    random.Random(0).shuffle(files)
    for paths in (files, [*files, tmp_path], [tmp_path / "viewer", tmp_path / "st 1"]):
        scan = scan_files(paths)
        assert [instance.path for instance in scan.instances] == [instance.path for instance in expected.instances]
        assert scan.skipped == expected.skipped


def test_links_to_folders_are_not_followed_and_missing_paths_reported(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "a", count=2)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    scan = scan_files([tmp_path, tmp_path / "nowhere"])
    assert len(scan.instances) == 2
    assert {file.path.name: file.code for file in scan.skipped} == {"nowhere": "unreadable"}


def test_identical_copies_are_skipped(phantoms: ModuleType, tmp_path: Path) -> None:
    paths = phantoms.make_series(tmp_path / "a", count=3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    scan = scan_files([tmp_path / "b", tmp_path / "a"])
    assert [instance.path for instance in scan.instances] == sorted(paths)
    assert [(file.code, file.path.parent.name) for file in scan.skipped] == [("duplicate file", "b")] * 3


def test_another_encoding_of_the_same_image_is_skipped_with_another_code(phantoms: ModuleType, tmp_path: Path) -> None:
    phantoms.make_series(tmp_path / "a", count=2)
    phantoms.make_series(tmp_path / "b", count=2, transfer_syntax=RLELossless)
    scan = scan_files([tmp_path])
    assert len(scan.instances) == 2
    assert [file.code for file in scan.skipped] == ["duplicate UID"] * 2


def test_different_slices_under_one_uid_are_all_kept(phantoms: ModuleType, tmp_path: Path) -> None:
    def same_uid(image: Dataset, index: int) -> None:
        image.SOPInstanceUID = "1.2.3"

    phantoms.make_series(tmp_path, count=4, edit=same_uid)
    assert len(scan_files([tmp_path]).instances) == 4


def test_images_of_two_patients_under_one_uid_are_both_kept(phantoms: ModuleType, tmp_path: Path) -> None:
    """As from a device that gives all its images the same SOP Instance UID."""

    def same_uid(image: Dataset, index: int) -> None:
        image.SOPInstanceUID = "1.2.3"

    phantoms.make_series(tmp_path / "a", count=1, edit=same_uid)
    phantoms.make_series(tmp_path / "b", count=1, seed="b", study="other", edit=same_uid)
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    scan = scan_files([tmp_path])
    assert [instance.path.parent.name for instance in scan.instances] == ["a", "b"]
    assert [(file.code, file.path.parent.name) for file in scan.skipped] == [("duplicate file", "c")]


def test_malformed_values_do_not_stop_the_search_for_copies(phantoms: ModuleType, tmp_path: Path) -> None:
    for path in phantoms.make_series(tmp_path, count=2):
        data = path.read_bytes()
        index = data.index(b"\x20\x00\x32\x00DS") + 8
        path.write_bytes(data[:index] + b"0,7" + data[index + 3 :])
    assert len(scan_files([tmp_path]).instances) == 2


def test_copies_with_a_malformed_position(phantoms: ModuleType, tmp_path: Path) -> None:
    """Held against each other as text."""
    for folder, text in (("a", b"0,7"), ("b", b"0,7"), ("c", b"0,8")):
        (path,) = phantoms.make_series(tmp_path / folder, count=1)
        data = path.read_bytes()
        index = data.index(b"\x20\x00\x32\x00DS") + 8
        path.write_bytes(data[:index] + text + data[index + 3 :])
    scan = scan_files([tmp_path])
    assert [instance.path.parent.name for instance in scan.instances] == ["a", "c"]
    assert [(file.code, file.path.parent.name) for file in scan.skipped] == [("duplicate file", "b")]


def test_images_without_a_uid_are_no_copies(phantoms: ModuleType, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (path,) = phantoms.make_series(tmp_path / folder, count=1)
        dataset = pydicom.dcmread(path)
        del dataset.SOPInstanceUID
        dataset.save_as(path)
    assert len(scan_files([tmp_path]).instances) == 2


def test_a_copy_that_cannot_be_read_again_is_not_called_identical(
    phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantoms.make_series(tmp_path / "a", count=1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def gone(*_: object, **__: object) -> bool:
        raise FileNotFoundError

    monkeypatch.setattr("filecmp.cmp", gone)
    (file,) = scan_files([tmp_path]).skipped
    assert file.code == "duplicate UID"


def test_a_locked_folder_is_reported(phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantoms.make_series(tmp_path / "a", count=2)
    phantoms.make_series(tmp_path / "locked", count=2, seed="b")
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan = scan_files([tmp_path])
    assert len(scan.instances) == 2
    assert scan.skipped == [SkippedFile(tmp_path / "locked", "unreadable", "The folder cannot be opened.")]


def test_the_beginning_of_a_file_beside_others(
    phantoms: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged where it may be the beginning of a DICOM file; a short text, or what cannot be read, is not DICOM."""
    phantoms.make_series(tmp_path, count=1)[0].rename(tmp_path / "IM0")
    for name, content in (("cut", bytes(128) + b"DI"), ("text", b"nothing"), ("other", bytes(128) + b"PK")):
        (tmp_path / name).write_bytes(content)

    def codes() -> dict[str, str]:
        return {file.path.name: file.code for file in scan_files([tmp_path]).skipped}

    assert codes() == {"cut": "damaged header", "text": "not DICOM", "other": "not DICOM"}

    def gone(_: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", gone)
    assert codes()["cut"] == "not DICOM"


def test_segmentations_and_doses_beside_the_slices_are_skipped(phantoms: ModuleType, tmp_path: Path) -> None:
    images = [pydicom.dcmread(path) for path in phantoms.make_series(tmp_path, count=3, text="x")]
    segment = hd.seg.SegmentDescription(
        1,
        "lesion",
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.SCT.Lesion,
        hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    segmentation = hd.seg.Segmentation(
        images,
        np.ones((3, 16, 20), np.uint8),
        hd.seg.SegmentationTypeValues.BINARY,
        [segment],
        series_instance_uid="1.2.3.4",
        series_number=9,
        sop_instance_uid="1.2.3.5",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="x",
        device_serial_number="x",
    )
    segmentation.save_as(tmp_path / "seg.dcm")
    phantoms.make_series(tmp_path, count=1, seed="dose", sop_class="1.2.840.10008.5.1.4.1.1.481.2")
    scan = scan_files([tmp_path])
    assert len(scan.instances) == 3
    assert sorted(file.code for file in scan.skipped) == ["RT dose", "segmentation"]


def test_progress_is_shown_only_when_asked_for(
    phantoms: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phantoms.make_series(tmp_path, count=2)
    scan_files([tmp_path])
    assert capsys.readouterr() == ("", "")
    scan_files([tmp_path], progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert str(tmp_path) not in shown
