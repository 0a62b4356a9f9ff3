# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli.plain_messages import damaged_files
from monai_anomalyclip.data import InputCatalogue, UnreadableInputError
from monai_anomalyclip.data.dicom import SkippedFile
from monai_anomalyclip.data.input_files import RESULTS, find_files, format_of


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
        else:
            path.write_text("text")


def found(*roots: Path, exclude: Path | None = None) -> list[str]:
    return [file.relative_to(folder).as_posix() for folder, file in find_files(roots, exclude, [])]


def test_files_are_found_once_in_a_fixed_order(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "a/c.txt", "a/.hidden", ".git/x", "a/d.png")
    assert found(tmp_path) == found(tmp_path, tmp_path / "a") == ["b.png", "a/c.txt", "a/d.png"]
    assert found(tmp_path / "a" / "d.png", tmp_path) == ["d.png", "b.png", "a/c.txt"]


def test_paths_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableInputError, match="does not exist: give a file or a folder"):
        find_files([tmp_path / "absent"], None, [])

    def refuse(path: Any, **_: Any) -> os.stat_result:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UnreadableInputError, match="cannot be opened: you have no permission"):
        find_files([tmp_path / "locked"], None, [])


@pytest.fixture(params=["as it is", "3.14"])
def pathlib_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own pathlib, and one that raises as little as that of Python 3.13 (resolve) and 3.14 (the others)."""
    if request.param == "3.14":
        monkeypatch.setattr(Path, "resolve", lambda path, strict=False: Path(os.path.realpath(path, strict=strict)))
        monkeypatch.setattr(Path, "exists", lambda path, **_: os.path.exists(path))
        monkeypatch.setattr(Path, "is_file", lambda path, **_: os.path.isfile(path))


@pytest.mark.usefixtures("pathlib_of")
def test_paths_that_cannot_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is told from what cannot be opened, whatever pathlib makes of the two."""
    os.symlink("there", tmp_path / "back")
    os.symlink("back", tmp_path / "there")
    with pytest.raises(UnreadableInputError, match=r"back' cannot be opened: .*links\.$"):
        find_files([tmp_path / "back"], None, [])
    os.symlink("nowhere", tmp_path / "broken")
    make(tmp_path, "a.png")
    for absent in ("absent", "broken", "a.png/b.png", "a\0"):
        with pytest.raises(UnreadableInputError, match="does not exist: give a file or a folder"):
            find_files([tmp_path / absent], None, [])
    skipped: list[Any] = []
    files = [file.name for _, file in find_files([tmp_path], None, skipped)]
    assert files == ["a.png", "broken"]  # to read the last one says that it is missing
    assert [(file.path.name, file.code) for file in skipped] == [("back", "unreadable"), ("there", "unreadable")]
    plain = os.stat

    def refuse(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if os.fspath(path).endswith("a.png"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return plain(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UnreadableInputError, match="cannot be opened: you have no permission"):
        find_files([tmp_path / "a.png"], None, [])
    skipped = []
    assert [file.name for _, file in find_files([tmp_path], None, skipped)] == ["broken"]
    assert {file.code for file in skipped} == {"unreadable"}


def test_what_vanishes_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = SkippedFile(tmp_path / "gone", "not DICOM")
    assert format_of(gone) is gone
    make(tmp_path, "a/c.txt", "out/d.png")

    plain = Path.resolve

    def refuse(path: Path) -> Path:
        if path.name == "a":
            raise PermissionError
        return plain(path)

    monkeypatch.setattr(Path, "resolve", refuse)
    assert found(tmp_path, exclude=tmp_path / "out") == ["a/c.txt"]


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    make(tmp_path, "outside/secret.png", "in/a.png", "in/sub/b.png")
    os.symlink(tmp_path / "outside/secret.png", tmp_path / "in/link.png")
    os.symlink(tmp_path / "outside", tmp_path / "in/folder")
    os.symlink(tmp_path / "in", tmp_path / "in/sub/loop")
    os.symlink(tmp_path / "in/nowhere.png", tmp_path / "in/broken.png")
    catalogue = InputCatalogue(tmp_path / "in", keep_names=True)
    assert set(catalogue.sources) == {"a", "sub/b", "broken"}
    assert catalogue.left_out() == {"link out of the folder": 1}
    os.symlink(tmp_path / "in", tmp_path / "root")  # the root itself may be a link
    assert len(InputCatalogue(tmp_path / "root").sources) == 3


def test_folders_that_cannot_be_opened_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    catalogue = InputCatalogue(tmp_path, keep_names=True)
    assert list(catalogue.sources) == ["a"]
    assert catalogue.left_out() == {"unreadable": 1}


def test_entries_that_cannot_be_followed_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A link that leads to itself, and a folder that can be listed but not entered."""
    make(tmp_path, "a.png", "DOE/b.png", "DOE/c.dcm")
    os.symlink("loop.png", tmp_path / "loop.png")
    os.symlink("there", tmp_path / "back")
    os.symlink("back", tmp_path / "there")
    assert found(tmp_path) == ["a.png", "DOE/b.png", "DOE/c.dcm"]
    stat = os.stat

    def refuse(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if "DOE/" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    with caplog.at_level(logging.DEBUG):
        catalogue = InputCatalogue(tmp_path)
    assert [source.paths[0].name for source in catalogue.sources.values()] == ["a.png"]
    assert catalogue.left_out() == {"unreadable": 5}
    assert "DOE" not in caplog.text + str([file.detail for file in catalogue.skipped])
    (tmp_path / "a.png").unlink()
    with pytest.raises(UnreadableInputError, match="left out: 5 x unreadable"):
        InputCatalogue(tmp_path)


def test_results_are_not_scanned(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "out/a_mask.png", "sub/out/b.png")
    assert set(InputCatalogue(tmp_path, exclude=tmp_path / "out", keep_names=True).sources) == {"a", "sub/out/b"}
    indirect = tmp_path / "sub" / ".." / "out"
    assert set(InputCatalogue(tmp_path, exclude=indirect, keep_names=True).sources) == {"a", "sub/out/b"}
    with pytest.raises(ValueError, match="Results cannot go into the input folder"):
        InputCatalogue(tmp_path, exclude=tmp_path)


@pytest.mark.parametrize("mark", ["NOTICE.txt", "results.json", "frame_0123456789abcdef_record.json"])
def test_folders_with_results_of_earlier_runs_are_left_out_and_counted(tmp_path: Path, mark: str) -> None:
    """Maps, masks and overlays of a first run are no inputs of a second one."""
    make(tmp_path, "a.png", "sub/results/a_overlay.jpg", "sub/results/deep/b_mask.png", "sub/b.png")
    (tmp_path / "sub" / "results" / mark).write_text(f'{{"research_use": "{RESEARCH_USE_ONLY}"}}')
    for folder in (tmp_path / "sub", tmp_path):
        (folder / "NOTICE.txt").write_text("of another program")
    catalogue = InputCatalogue(tmp_path, keep_names=True)
    assert set(catalogue.sources) == {"a", "sub/b"}
    assert catalogue.left_out()["results of an earlier run"] == 1
    with pytest.raises(UnreadableInputError, match="left out: 1 x results of an earlier run"):
        InputCatalogue(tmp_path / "sub" / "results")


def test_a_link_to_a_result_is_no_input(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "NOTICE.txt").write_text(RESEARCH_USE_ONLY)
    for name in (tmp_path / "a.png", results / "a_overlay.png"):
        name.touch()
    (tmp_path / "latest.png").symlink_to(results / "a_overlay.png")
    (tmp_path / "same.png").symlink_to(tmp_path / "a.png")
    skipped: list[SkippedFile] = []
    assert len(find_files([tmp_path], None, skipped)) == 1
    assert [file.code for file in skipped] == [RESULTS, RESULTS]


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*SCOUT*"], {"a", "old/c", "sub/old/d"}),  # the folder, and the file in another one
        (["*/old/*"], {"a", "scout/b", "sub/scout_e"}),
        (["old/*", "a.*"], {"scout/b", "sub/old/d", "sub/scout_e"}),
        (["old/"], {"a", "scout/b", "sub/scout_e"}),
        (["[ab].png"], {"old/c", "sub/old/d", "sub/scout_e"}),
        ([], {"a", "scout/b", "old/c", "sub/old/d", "sub/scout_e"}),
    ],
)
def test_patterns_leave_out_files_and_folders(tmp_path: Path, patterns: list[str], left: set[str]) -> None:
    make(tmp_path, "a.png", "scout/b.png", "old/c.png", "sub/old/d.png", "sub/scout_e.png")
    catalogue = InputCatalogue(tmp_path, exclude_patterns=patterns, keep_names=True)
    assert set(catalogue.sources) == left
    assert bool(catalogue.left_out().get("excluded")) == bool(patterns)
    # What is named itself is meant, whatever it is called.
    named = InputCatalogue([tmp_path / "scout", tmp_path / "a.png"], exclude_patterns=["scout", "a.png"])
    assert len(named.sources) == 2


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("study.zip", b"PK\x03\x04", "ZIP archive, not read"),
        ("study.tar", b"\0" * 257 + b"ustar", "TAR archive, not read"),
        ("a.dcm.gz", b"\x1f\x8b\x08", "gzip-compressed file, not read"),
        ("photo.heic", b"\0\0\0\x18ftypheic", "HEIC picture, not read"),
        ("photo", b"\x89PNG\r\n\x1a\n", "picture without its suffix, not read"),
        ("slide.svs", b"II*\0", "TIFF of another suffix, not read"),
        ("scan.par", b"# === DATA", "Philips PAR/REC volume, not read"),
        ("a.img", b"\0" * 9, "voxels of a header beside it"),
        ("b.img", b"\0" * 9, "Analyze volume without its header, not read"),
        ("table.xlsx", b"PK\x03\x04", "not DICOM"),
        ("notes.txt", b"I am a text", "not DICOM"),
    ],
)
def test_formats_have_names(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "a.hdr").touch()
    found = format_of(SkippedFile(tmp_path / name, "not DICOM"))
    assert found.code == code
    assert str(tmp_path) not in found.detail
    assert ("first." in found.detail or "suffix" in found.detail) == code.endswith(", not read")
    assert damaged_files({found.code: 2}) == 2 * code.endswith(", not read")
