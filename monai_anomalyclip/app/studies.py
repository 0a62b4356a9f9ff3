# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the page keeps of each study, in a private folder: where its files are, how far it is, what was found."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from monai_anomalyclip.atomic_file import make_private_folder, write_atomically
from monai_anomalyclip.writers.finished import DamagedRecordError, InputState, read_state

__all__ = ["Study", "StudyRecord", "Workplace"]

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
        self._states: dict[str, tuple[int, InputState]] = {}

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
                state = read_state(self.results, name)
                if state is None:
                    return None
                known = self._states[name] = (stamp, state)
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
