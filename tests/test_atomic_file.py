# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip import atomic_file
from monai_anomalyclip.atomic_file import (
    make_private_folder,
    on_disk,
    remove_abandoned,
    replaced_when_complete,
    unfinished_path,
    write_atomically,
)


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


def test_folders_that_vanish_meanwhile_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = multiprocessing.get_context("spawn").Process(target=leave_unfinished_folder, args=(tmp_path, tmp_path))
    process.start()
    process.join()
    live = unfinished_path(tmp_path / "of another thread")
    gone = tmp_path / "gone"
    for folder in (live, gone):
        folder.mkdir()
    scan = os.scandir

    def scan_late(path: Any) -> Any:
        if path in map(str, (live, gone)) or path in (live, gone):  # its owner was quicker
            shutil.rmtree(path, ignore_errors=True)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_late)
    remove_abandoned(tmp_path)
    monkeypatch.undo()
    assert set(tmp_path.iterdir()) <= {live}


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_what_this_process_failed_to_remove_is_replaced(tmp_path: Path) -> None:
    unfinished_path(tmp_path / "f").write_bytes(b"half of an older one")
    write_atomically(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes(), p.stat().st_mode & 0o777) for p in tmp_path.iterdir()] == [("f", b"new", 0o600)]


def test_folders_of_results_are_their_owners_alone(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b" / "c")
    make_private_folder(tmp_path / "a" / "b" / "c")
    for name in ("a", "a/b", "a/b/c"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")


def test_what_is_renamed_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a loss of power leaves an empty file under the final name."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def renamed(*paths: Path) -> None:
        steps.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_atomically(tmp_path / "f", b"new")
    assert steps == ["file", "rename", "folder"]
    assert on_disk(tmp_path / "f") == (3, hashlib.sha256(b"new").hexdigest())
    assert steps[3:] == ["file"]


def test_processes_of_other_computers_and_containers_are_left_in_peace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their numbers mean nothing here; and one number comes again when a container is started anew."""
    with monkeypatch.context() as patch:
        patch.setattr(atomic_file, "_HOST", "0123ab")
        foreign = unfinished_path(tmp_path / "a.png")
        old = unfinished_path(tmp_path / "b.png")
        foreign.touch()
        old.touch()
        os.utime(old, (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(atomic_file, "_TOKEN", "fedcba")
        mine_before = unfinished_path(tmp_path / "c.png")
        mine_before.touch()
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [foreign]
