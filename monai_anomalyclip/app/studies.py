# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the page keeps of each study in a private folder, and the queue in which they are scored.

Each is scored in a process of its own: one that fails or is stopped takes nothing along.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from monai_anomalyclip.app.intake import Intake, RefusedUploadError
from monai_anomalyclip.atomic_file import make_private_folder, write_atomically
from monai_anomalyclip.data.dicom.series import text_of
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.data.sources import DicomSource, Source
from monai_anomalyclip.writers.finished import DamagedRecordError, InputState, read_state

__all__ = ["Runner", "Study", "StudyRecord", "Workplace"]

_ID = re.compile(r"[0-9a-f]{16}")


class StudyRecord(BaseModel):
    """``study.json``.

    Attributes:
        id: name of its folder.
        title: what the user sees.
        created: ISO 8601 in UTC.
        path: files on this machine that were named; empty for those that were sent.
        settings: further words of the command `predict`.
        state: receiving, queued, running, finished, failed or stopped.
        message: why it failed.
        names: of the inputs that were found.
        labels: what each is to its owner, by name.
    """

    id: str
    title: str
    created: str
    path: str = ""
    settings: tuple[str, ...] = ()
    state: Literal["receiving", "queued", "running", "finished", "failed", "stopped"] = "receiving"
    message: str = ""
    names: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class Study:
    """A study in its folder; several threads may use it.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.record = StudyRecord.model_validate_json((folder / "study.json").read_bytes())
        self._states: dict[str, tuple[int, InputState | None]] = {}

    @property
    def sent(self) -> Path:
        """Where files go that a browser sends."""
        return self.folder / "inputs"

    @property
    def inputs(self) -> Path:
        """What is scored."""
        return Path(self.record.path) if self.record.path else self.sent

    @property
    def results(self) -> Path:
        """The output folder of `predict`."""
        return self.folder / "results"

    def change(self, **values: Any) -> None:
        """Change what is kept of the study."""
        with self.lock:
            self.record = self.record.model_copy(update=values)
            write_atomically(self.folder / "study.json", self.record.model_dump_json(indent=2).encode())

    def state(self, name: str) -> InputState | None:
        """The record of an input; None where there is none yet, or none that can be read."""
        path = self.results / f"{name}_record.json"
        try:
            stamp = path.stat().st_mtime_ns
            known = self._states.get(name)
            if known is None or known[0] != stamp:
                known = self._states[name] = (stamp, read_state(self.results, name))
        except (OSError, DamagedRecordError):
            return None
        return known[1]

    def states(self) -> dict[str, InputState | None]:
        """The records of all inputs that were found."""
        return {name: self.state(name) for name in self.record.names}


class Workplace:
    """The folder of all studies; what an earlier program kept there is found again.

    Args:
        folder: made for its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_private_folder(folder / "studies")
        self.lock = threading.Lock()
        self.studies: dict[str, Study] = {}
        for path in sorted((folder / "studies").iterdir()):
            if _ID.fullmatch(path.name):
                try:
                    self.studies[path.name] = Study(path)
                except (OSError, ValidationError):
                    continue  # one that was not finished being made

    def new(self, title: str, path: str = "", settings: tuple[str, ...] = ()) -> Study:
        """Make a study."""
        name = secrets.token_hex(8)
        folder = self.folder / "studies" / name
        make_private_folder(folder)
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = StudyRecord(id=name, title=title, created=created, path=path, settings=settings)
        write_atomically(folder / "study.json", record.model_dump_json(indent=2).encode())
        with self.lock:
            self.studies[name] = Study(folder)
            return self.studies[name]

    def remove(self, study: Study) -> None:
        """Forget a study, and remove what was sent and found; files that were named stay where they are."""
        with self.lock:
            self.studies.pop(study.record.id, None)
        shutil.rmtree(study.folder, ignore_errors=True)


_PATIENCE = 20  # seconds for a process to end by itself


class Runner:
    """A queue of studies and the thread that works it off.

    Args:
        words: of the command `predict` that hold for all studies, such as ``["--bundle", "anomalyclip_demo"]``.
        most_bytes: as for :class:`Intake`.
        most_files: likewise.
    """

    def __init__(self, words: Sequence[str], most_bytes: int, most_files: int) -> None:
        self.words = list(words)
        self.limits = (most_bytes, most_files)
        self._waiting: queue.Queue[Study | None] = queue.Queue()
        self._lock = threading.Lock()
        self._running: tuple[Study, subprocess.Popen[bytes]] | None = None
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)
        self._thread.start()

    def add(self, study: Study) -> None:
        """Score a study when those before it are done."""
        study.change(state="queued", message="")
        self._waiting.put(study)

    def stop(self, study: Study) -> None:
        """Stop a study; what is finished stays, and the rest can be done later."""
        with self._lock:
            study.change(state="stopped")
            if self._running is not None and self._running[0] is study:
                self._running[1].terminate()

    def close(self) -> None:
        """Stop what is running; it is resumed when the program is started again."""
        self._waiting.put(None)
        with self._lock:
            if self._running is not None:
                self._running[1].terminate()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        while (study := self._waiting.get()) is not None:
            if study.record.state != "queued":
                continue  # stopped while it waited
            try:
                self._score(study)
            except (RefusedUploadError, UnreadableInputError) as error:
                study.change(state="failed", message=str(error))
            except Exception as error:  # whatever it is, the next study is to be scored
                study.change(state="failed", message=f"It could not be scored ({type(error).__name__}).")

    @staticmethod
    def _stopped(study: Study) -> bool:
        return study.record.state == "stopped"

    def _score(self, study: Study) -> None:
        if not study.record.path:
            Intake.resumed(study.sent, *self.limits).unpack()
        sources = InputCatalogue(study.inputs).sources
        labels = {name: _label(source, study.inputs) for name, source in sources.items()}
        with self._lock:
            if self._stopped(study):
                return
            study.change(names=tuple(sources), labels=labels, state="running")
        overlay = study.folder / "naming.json"
        write_atomically(overlay, b'{"keep_names": false}')  # so that names are those of `sources`, whatever the bundle
        command = [sys.executable, "-m", "monai_anomalyclip", "predict", str(study.inputs), "-o", str(study.results)]
        log = study.folder / "log.txt"
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            with self._lock:
                if self._stopped(study):
                    return
                process = subprocess.Popen(
                    [*command, "--config", str(overlay), *self.words, *study.record.settings],
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
                self._running = (study, process)
            status = process.wait()
        with self._lock:
            self._running = None
            if self._stopped(study):
                return
            if status < 0 or status >= 128:
                study.change(state="queued")  # by the end of this program: the next one resumes it
            elif reason := _reason(log, status):
                study.change(state="failed", message=reason)
            else:
                study.change(state="finished")


def _label(source: Source, root: Path) -> str:
    """What tells an input to its owner, on this page alone: the series' description, or the file."""
    if isinstance(source, DicomSource):
        header = source.series.header
        return " ".join(filter(None, (text_of(header, "SeriesNumber"), text_of(header, "SeriesDescription"))))[:100]
    path = source.paths[0]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _reason(log: Path, status: int) -> str:
    """Why the command failed; nothing where it did its work, be it with inputs that failed (status 1)."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in reversed(lines):
            if line.startswith("error: "):
                return line.removeprefix("error: ")
    return "" if status in (0, 1) else "The program ended without a reason; its log is in the study's folder."
