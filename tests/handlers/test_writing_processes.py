# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from monai_anomalyclip.handlers import writing_processes
from monai_anomalyclip.handlers.writing_processes import KILLED, WritingProcesses, can_fork
from monai_anomalyclip.writers.resume import NotWritten

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes cannot be forked here")


class Writing:
    """Writes the sum of an item's image into a file of its name, and which process did so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: Mapping[str, Any]) -> NotWritten | None:
        name = item["name"]
        attempts = self.folder / f"{name}.attempts"
        with attempts.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        count = len(attempts.read_text().split())
        if item.get("kill", 0) >= count:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.get("refused"):
            return NotWritten("odd geometry", recorded=False)
        time.sleep(item.get("slow", 0))
        (self.folder / name).write_text(str(int(item["image"].sum())))
        return None

    def attempts(self, name: str) -> list[int]:
        return [int(line) for line in (self.folder / f"{name}.attempts").read_text().split()]


@pytest.fixture
def writing(tmp_path: Path) -> Writing:
    return Writing(tmp_path)


@pytest.fixture
def processes(writing: Writing) -> Iterator[WritingProcesses]:
    made = WritingProcesses(2, writing)
    yield made
    made.close()


def image(value: int) -> torch.Tensor:
    return torch.full((10,), value)


def submit_all(processes: WritingProcesses, items: list[dict[str, Any]]) -> list[tuple[str, NotWritten | None]]:
    return [outcome for item in items for outcome in processes.submit(item)] + list(processes.drain())


def test_all_is_written_elsewhere_and_told_in_order(writing: Writing, processes: WritingProcesses) -> None:
    items = [{"name": str(n), "image": image(n), "slow": 0.1 if n == 0 else 0, "refused": n == 3} for n in range(8)]
    assert submit_all(processes, items) == [
        (str(n), NotWritten("odd geometry", recorded=False) if n == 3 else None) for n in range(8)
    ]
    for n in (0, 1, 7):
        assert (writing.folder / str(n)).read_text() == str(10 * n)
    assert os.getpid() not in {process for n in range(8) for process in writing.attempts(str(n))}


def test_what_a_killed_process_had_in_hand_is_written_again(writing: Writing, processes: WritingProcesses) -> None:
    items = [{"name": str(n), "image": image(n), "kill": 1 if n == 2 else 0} for n in range(6)]
    assert submit_all(processes, items) == [(str(n), None) for n in range(6)]
    assert [(writing.folder / str(n)).read_text() for n in range(6)] == [str(10 * n) for n in range(6)]
    assert len(writing.attempts("2")) == 2


def test_an_item_that_kills_twice_has_failed_and_the_others_are_written(
    writing: Writing, processes: WritingProcesses
) -> None:
    items = [{"name": str(n), "image": image(n), "kill": 9 if n == 1 else 0} for n in range(5)]
    assert submit_all(processes, items) == [
        (str(n), NotWritten(KILLED, passing=True) if n == 1 else None) for n in range(5)
    ]
    assert not (writing.folder / "1").exists()
    assert len(writing.attempts("1")) in (2, 3)  # once more if another one's process broke down with it
    assert (writing.folder / "4").read_text() == "40"


def test_items_that_come_after_a_breakdown_are_written_too(writing: Writing, processes: WritingProcesses) -> None:
    """Python's pool takes nothing more once a process of it was killed, and says so when something is submitted."""
    assert list(processes.submit({"name": "0", "image": image(0), "kill": 1})) == []
    assert isinstance(processes._waiting[0].future.exception(), BrokenProcessPool)
    after = [{"name": name, "image": image(int(name))} for name in "12"]
    assert submit_all(processes, after) == [("0", None), ("1", None), ("2", None)]
    assert [(writing.folder / name).read_text() for name in "012"] == ["0", "10", "20"]
    assert [len(writing.attempts(name)) for name in "012"] == [2, 1, 1]


def test_no_more_waits_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, writing: Writing, processes: WritingProcesses
) -> None:
    monkeypatch.setattr(writing_processes, "_MOST_BYTES", 200)  # two images of ten int64
    waiting = []
    for n in range(6):
        list(processes.submit({"name": str(n), "image": image(n), "slow": 0.05}))
        waiting.append(len(processes._waiting))
    assert max(waiting) <= 2
    list(processes.submit({"name": "large", "image": torch.ones(1000)}))  # alone, since it would never fit
    assert len(processes._waiting) <= 1
    list(processes.drain())
    assert (writing.folder / "large").read_text() == "1000"


def test_signals_of_the_terminal_are_left_to_the_run(writing: Writing, processes: WritingProcesses) -> None:
    submit_all(processes, [{"name": str(n), "image": image(n)} for n in range(4)])
    (process,) = {process for n in range(4) for process in writing.attempts(str(n))} & {writing.attempts("0")[0]}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process, number)
    time.sleep(0.1)
    assert lives(process)
    assert submit_all(processes, [{"name": "5", "image": image(5)}]) == [("5", None)]


def write_and_wait(folder: Path) -> None:
    processes = WritingProcesses(2, Writing(folder))
    submit_all(processes, [{"name": str(n), "image": image(n), "slow": 0.2} for n in range(4)])
    (folder / "ready").touch()
    time.sleep(600)
    processes.close()


def lives(process: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False


def test_they_end_when_the_run_is_killed(tmp_path: Path) -> None:
    run = multiprocessing.get_context("fork").Process(target=write_and_wait, args=(tmp_path,))
    run.start()
    deadline = time.monotonic() + 600
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = {process for n in range(4) for process in Writing(tmp_path).attempts(str(n))}
    assert all(map(lives, workers))
    run.kill()
    run.join()
    while any(map(lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(lives, workers))
