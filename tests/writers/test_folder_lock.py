# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monai_anomalyclip.writers import folder_lock
from monai_anomalyclip.writers.folder_lock import FolderInUseError, FolderLock

# The second process outlives a killed one, as a worker that reads ahead does for some seconds.
SCRIPT = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("folder_lock", sys.argv[2])  # without torch, which takes seconds
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
lock = module.FolderLock(sys.argv[1])
if not os.fork():
    print("held", flush=True)  # by the parent alone: here it has been forgotten
sys.stdin.read()
"""


def locks_on(folder: Path) -> int:
    """How many locks of this process are on a folder."""
    place = folder.stat()
    return folder_lock._held.get((place.st_dev, place.st_ino), (0, 0))[1]


@pytest.fixture
def holder() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start a process that holds a folder, with a child of its own."""
    started = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, str(folder), folder_lock.__file__]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # which ends the child, too
        process.wait(30)
        process.stdout.close()


def test_another_process_is_refused_until_the_first_is_killed(
    holder: Callable[[Path], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = holder(tmp_path)
    message = f"Another run is writing to the output folder '{tmp_path}': wait until it has ended, or choose another"
    with pytest.raises(FolderInUseError, match=message):
        FolderLock(tmp_path)
    process.kill()
    process.wait(30)
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_released_or_forgotten_it_lets_others_in(
    holder: Callable[[Path], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)  # runs of one process share it
    first.release()
    first.release()
    assert locks_on(tmp_path) == 1
    del second
    gc.collect()
    assert locks_on(tmp_path) == 0
    holder(tmp_path)


def test_where_folders_cannot_be_locked_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_: int) -> None:
            raise OSError(95, "Operation not supported")

    for system in (Other, None):
        monkeypatch.setattr(folder_lock, "_fcntl", system)
        FolderLock(tmp_path).release()
    assert locks_on(tmp_path) == 0
    FolderLock(tmp_path / "absent").release()
