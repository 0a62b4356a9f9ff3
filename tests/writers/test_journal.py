# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.writers.journal import JOURNAL, Journal, known_names


def test_the_last_entry_of_a_name_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    assert journal.status("a") is None
    assert not (tmp_path / "j.jsonl").exists()
    for status in ("started", "ok"):
        journal.add({"name": "a", "status": status})
    journal.add({"name": "b", "status": "failed", "reason": "cut ä\n"})
    again = Journal(tmp_path / "j.jsonl")
    assert list(again.entries) == ["a", "b"]
    assert (again.status("a"), again.status("b")) == ("ok", "failed")
    assert again.entries["b"]["reason"] == "cut ä\n"
    assert (tmp_path / "j.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", range(1, 26))
def test_a_line_cut_off_at_any_byte_is_forgotten(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.add({"name": "a", "status": "ok"})
    whole = path.read_bytes()
    journal.add({"name": "b", "status": "ok"})
    added = path.read_bytes()[len(whole) :]
    assert cut < len(added)
    path.write_bytes(whole + added[:cut])
    again = Journal(path)
    assert list(again.entries) == ["a"]
    again.add({"name": "c", "status": "ok"})
    again.add({"name": "d", "status": "ok"})
    assert list(Journal(path).entries) == ["a", "c", "d"]


def test_what_another_run_wrote_is_not_destroyed(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    first, second = Journal(path), Journal(path)
    first.add({"name": "a", "status": "ok"})
    whole = path.read_bytes()
    with pytest.raises(
        RuntimeError, match=r"'j\.jsonl' in the output folder was changed while this run went on: start"
    ):
        second.add({"name": "b", "status": "ok"})
    assert path.read_bytes() == whole
    first.add({"name": "c", "status": "ok"})
    assert list(Journal(path).entries) == ["a", "c"]


def test_a_line_that_found_no_room_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.add({"name": "a", "status": "ok"})

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(bytes(content)[:5])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", Full)
        with pytest.raises(OSError, match="No space left"):
            journal.add({"name": "b", "status": "ok"})
    journal.add({"name": "c", "status": "ok"})
    assert list(Journal(tmp_path / "j.jsonl").entries) == ["a", "c"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text("my notes\n" + json.dumps({"name": "a"}) + "\n")
    with pytest.raises(ValueError, match=r"Line 1 of 'j\.jsonl' in the output folder is not an entry"):
        Journal(path)


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Journal(tmp_path / "j.jsonl").add({"name": "a", "score": float("nan")})
    assert not (tmp_path / "j.jsonl").exists()


def test_names_that_a_folder_knows(tmp_path: Path) -> None:
    assert known_names(tmp_path / "absent") == []
    assert known_names(tmp_path) == []
    journal = Journal(tmp_path / JOURNAL)
    for name, status in (("b", "ok"), ("a", "failed"), ("b", "started"), ("c", "started")):
        journal.add({"name": name, "status": status})
    assert known_names(str(tmp_path)) == ["b", "a", "c"]  # also of what failed or was never finished
