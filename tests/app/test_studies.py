# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.app import studies
from monai_anomalyclip.app.studies import Runner, Study, Workplace
from tests.app.conftest import Scored


def test_studies_are_found_again(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "app")
    study = place.new("One", "/data/x", ("--threshold", "0.4"))
    study.change(state="finished", names=("a",))
    (tmp_path / "app" / "studies" / "0123456789abcdef").mkdir()  # one that was not finished being made
    (tmp_path / "app" / "studies" / "foreign").mkdir()
    again = Workplace(tmp_path / "app")
    assert {key: found.record for key, found in again.studies.items()} == {study.record.id: study.record}
    assert again.studies[study.record.id].inputs == Path("/data/x")
    assert stat.S_IMODE((tmp_path / "app").stat().st_mode) == 0o700
    assert stat.S_IMODE((study.folder / "study.json").stat().st_mode) == 0o600
    again.remove(again.studies[study.record.id])
    assert not study.folder.exists()
    assert not Workplace(tmp_path / "app").studies


def test_records_are_read_anew_when_they_change(scored: Callable[[], Scored]) -> None:
    _, study, _ = scored()
    states = study.states()
    assert len(states) == 2
    name = next(iter(states))
    first = study.state(name)
    assert first is not None
    assert study.state(name) is first
    path = study.results / f"{name}_record.json"
    path.write_text("{}")
    assert study.state(name) is None
    path.unlink()
    assert study.state(name) is None


# Stands for the command: it notes its words, and ends, fails or waits as the study's settings say.
PROGRAM = """
import pathlib, sys, time
words = sys.argv[1:]
out = pathlib.Path(words[words.index("-o") + 1])
out.mkdir(exist_ok=True)
(out / "words.txt").write_text("\\n".join(words))
if "fail" in words:
    print("error: There are no prompts.")
    sys.exit(1)
if "wait" in words:
    time.sleep(600)
(out / "results.json").write_text("{}")
"""


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runner]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    real = subprocess.Popen

    def instead(command: list[str], **options: Any) -> Any:
        assert command[:4] == [sys.executable, "-m", "monai_anomalyclip", "predict"]
        return real([sys.executable, "-S", str(script), *command[4:]], **options)

    monkeypatch.setattr(studies.subprocess, "Popen", instead)
    made = Runner(["--device", "cpu"], 10**6, 100)
    yield made
    made.close()


def study_of(tmp_path: Path, *settings: str) -> Study:
    study = Workplace(tmp_path / "app").new("S", "", settings)
    study.sent.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(study.sent / "skin.png")
    return study


def wait(study: Study, *states: str) -> None:
    end = time.monotonic() + 600
    while study.record.state not in states:
        assert time.monotonic() < end, study.record
        threading.Event().wait(0.02)


def test_a_study_is_scored(queue: Runner, tmp_path: Path) -> None:
    study = study_of(tmp_path, "--threshold", "0.4")
    queue.add(study)
    wait(study, "finished")
    words = (study.results / "words.txt").read_text().splitlines()
    assert words[0] == str(study.sent)
    assert words[-4:] == ["--device", "cpu", "--threshold", "0.4"]
    assert len(study.record.names) == 1
    assert set(study.record.labels.values()) == {"skin.png"}


def test_failures_are_sentences_and_the_next_study_is_scored(queue: Runner, tmp_path: Path) -> None:
    failing, empty, good = study_of(tmp_path, "fail"), study_of(tmp_path), study_of(tmp_path)
    (empty.sent / "skin.png").rename(empty.sent / "note.txt")
    (empty.sent / "note.txt").write_text("nothing")
    for study in (failing, empty, good):
        queue.add(study)
    wait(good, "finished")
    assert (failing.record.state, failing.record.message) == ("failed", "There are no prompts.")
    assert empty.record.state == "failed"
    assert empty.record.message


def test_an_upload_that_is_refused_and_a_fault_of_ours_are_sentences(queue: Runner, tmp_path: Path) -> None:
    packed, odd = study_of(tmp_path), study_of(tmp_path)
    with zipfile.ZipFile(packed.sent / "many.zip", "w") as archive:
        for index in range(200):
            archive.writestr(f"{index}.png", b"x")
    (odd.folder / "naming.json").mkdir()
    for study in (packed, odd):
        queue.add(study)
        wait(study, "failed")
    assert packed.record.message == "More than 100 files: name a folder on this machine instead."
    assert odd.record.message == "It could not be scored (IsADirectoryError)."


@pytest.mark.parametrize("moment", ["InputCatalogue", "write_atomically", "process"])
def test_stopped_at_any_moment_it_stays_stopped(
    moment: str, queue: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its files are searched, before the program is started, and while it runs, of which it knows then."""
    study, begun = study_of(tmp_path), []
    real = studies.subprocess.Popen

    def stopping(what: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if arguments[0] != study.folder / "study.json":
            queue.stop(study)
        return what(*arguments, **options)

    class Process:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            begun.append(self)
            self.ended = 0

        def terminate(self) -> None:
            self.ended = -15

        def wait(self) -> int:
            if moment == "process":
                queue.stop(study)
            return self.ended

    monkeypatch.setattr(studies.subprocess, "Popen", Process)
    if moment != "process":
        monkeypatch.setattr(studies, moment, functools.partial(stopping, getattr(studies, moment)))
    study.change(state="queued")
    queue._score(study)
    monkeypatch.setattr(studies.subprocess, "Popen", real)
    assert study.record.state == "stopped"
    assert [one.ended for one in begun] == ([-15] if moment == "process" else [])


def test_stopped_ones_can_go_on(queue: Runner, tmp_path: Path) -> None:
    study, waiting = study_of(tmp_path, "wait"), study_of(tmp_path)
    queue.add(study)
    queue.add(waiting)
    queue.stop(waiting)
    wait(study, "running")
    while not (study.results / "words.txt").exists():
        threading.Event().wait(0.02)
    queue.stop(study)
    wait(study, "stopped")
    study.change(settings=())
    queue.add(study)
    wait(study, "finished")
    assert waiting.record.state == "stopped"


def test_what_runs_at_the_end_is_resumed_next_time(queue: Runner, tmp_path: Path) -> None:
    study = study_of(tmp_path, "wait")
    queue.add(study)
    wait(study, "running")
    while not (study.results / "words.txt").exists():
        threading.Event().wait(0.02)
    queue.close()
    assert study.record.state == "queued"
