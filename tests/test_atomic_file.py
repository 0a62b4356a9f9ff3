# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from monai_anomalyclip.atomic_file import remove_abandoned, replaced_when_complete, unfinished_path


def test_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "result.nii.gz"
    with replaced_when_complete(target) as unfinished:
        unfinished.write_text("new")
        assert not target.exists()
        assert unfinished.name.endswith("result.nii.gz")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")

    def fail() -> None:
        with replaced_when_complete(target) as unfinished:
            unfinished.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def leave_unfinished(folder: Path) -> None:
    unfinished_path(folder / "result.txt").write_text("half")


def test_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    process = multiprocessing.get_context("spawn").Process(target=leave_unfinished, args=(tmp_path / "ct",))
    process.start()
    process.join()
    (abandoned,) = (tmp_path / "ct").iterdir()
    mine = unfinished_path(tmp_path / "map.nii.gz")
    others = [mine, tmp_path / "ct" / ".unfinished", tmp_path / ".unfinished-x.txt", tmp_path / "map.nii.gz"]
    for path in others:
        path.touch()
    remove_abandoned(tmp_path)
    assert not abandoned.exists()
    assert all(path.exists() for path in others)


def leave_unfinished_folder(folder: Path, kept: Path) -> None:
    made = unfinished_path(folder / "bundle")
    (made / "configs").mkdir(parents=True)
    unfinished_path(made / "configs" / "train.json").write_text("half")
    unfinished_path(folder / "link").symlink_to(kept, target_is_directory=True)


def test_folders_that_dead_processes_left_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").touch()
    arguments = (tmp_path / "out", kept)
    process = multiprocessing.get_context("spawn").Process(target=leave_unfinished_folder, args=arguments)
    process.start()
    process.join()
    mine = unfinished_path(tmp_path / "out" / "bundle")
    mine.mkdir()
    assert len(list((tmp_path / "out").iterdir())) == 3
    remove_abandoned(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [mine]
    assert (kept / "mine.txt").exists()
