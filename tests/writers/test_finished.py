# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.writers.finished import (
    DamagedRecordError,
    InputState,
    Slices,
    differences,
    read_state,
    sealed,
    write_state,
)
from monai_anomalyclip.writers.record import InputRecord, MadeWith, Model
from monai_anomalyclip.writers.tables import made_with


def made(options: dict[str, Any], **model: Any) -> MadeWith:
    fields = {"backbone": "b", "backbone_sha256": "0" * 64, "settings": {"depth": 3}, **model}
    return made_with(Model(**fields), options, "cpu")


def state_of(folder: Path, name: str = "sub/a", contents: tuple[bytes, ...] = (b"map", b"mask")) -> InputState:
    """A finished result whose files lie in the folder."""
    (folder / "sub").mkdir(exist_ok=True)
    outputs = [f"{name}_{index}.png" for index in range(len(contents))]
    for output, content in zip(outputs, contents, strict=True):
        (folder / output).write_bytes(content)
    record = InputRecord(name=name, source="frame", kind="frame", frames=1, scores=[0.5], outputs=outputs)
    return InputState(
        name=name,
        state="finished",
        content="ab" * 32,
        made_with=made({"threshold": 0.5}),
        files=sealed(folder, outputs),
        slices=Slices(map_max=(0.5,), area_fraction=(0.0,)),
        record=record,
    )


def test_a_record_lies_beside_the_results_and_is_its_owners_alone(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    assert read_state(tmp_path, "sub/a") is None
    write_state(tmp_path, state)
    path = tmp_path / "sub" / "a_record.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_state(tmp_path, "sub/a") == state
    stored = json.loads(path.read_text())["files"]
    assert [(file["bytes"], file["sha256"]) for file in stored] == [
        (len(content), hashlib.sha256(content).hexdigest()) for content in (b"map", b"mask")
    ]


def test_files_that_are_gone_cut_or_changed_are_found(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    assert (state.present(tmp_path), state.missing(tmp_path), state.altered(tmp_path)) == (True, [], [])
    first, second = (tmp_path / file.path for file in state.files)
    first.write_bytes(b"")
    second.write_bytes(b"mesk")  # as long as before
    assert state.missing(tmp_path) == ["sub/a_0.png"]
    assert state.altered(tmp_path) == ["sub/a_0.png", "sub/a_1.png"]
    first.unlink()
    assert state.missing(tmp_path) == ["sub/a_0.png"]
    assert state.present(tmp_path)
    second.unlink()
    assert not state.present(tmp_path)


def test_a_refused_result_is_shown_as_failed(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    assert state.shown() == state.record
    shown = state.model_copy(update={"refused": "The input has changed."}).shown()
    assert shown is not None
    assert (shown.status, shown.reason, shown.kind, shown.scores) == ("failed", "The input has changed.", "frame", ())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"name": "sub/a", "state": "ok"}',
        b'{"name": "sub/a", "state": "finished", "files": [{"path": "/etc/passwd"}]}',
        b'{"name": "sub/a", "state": "finished", "files": [{"path": "../x", "bytes": 0, "sha256": "'
        + b"0" * 64
        + b'"}]}',
        b'{"name": "sub/a", "state": "finished", "patient": "DOE^JOHN"}',
        b'{"name": "sub/b", "state": "finished"}',
        b"\xff\xfe",
    ],
)
def test_damaged_and_foreign_records_are_one_sentence_that_quotes_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a_record.json").write_bytes(content)
    with pytest.raises(DamagedRecordError, match=r"^The record of 'sub/a' in the output folder ") as caught:
        read_state(tmp_path, "sub/a")
    assert "remove it" in str(caught.value)
    for secret in ("DOE", "passwd", str(tmp_path), "\n"):
        assert secret not in str(caught.value)


def test_differences_name_what_results_depend_on(tmp_path: Path) -> None:
    before = made({"threshold": 0.5, "outputs": ["png"], "deterministic_uids": False})
    assert differences(before, before.model_copy(update={"device": "cuda:0", "versions": {}})) == []
    assert differences(before, made({"threshold": 0.4, "outputs": ("png",), "deterministic_uids": True})) == [
        "threshold"
    ]
    assert differences(before, made({"threshold": 0.5, "sigma": 4})) == ["deterministic_uids", "outputs", "sigma"][1:]
    same = {"threshold": 0.5, "outputs": ["png"]}
    assert differences(before, made(same, settings={"depth": 4})) == ["model"]
    assert differences(before, made(same, prompts_sha256="1" * 64)) == ["model"]
    older = before.model_copy(update={"tool": before.tool.model_copy(update={"version": "9"})})
    assert differences(before, older) == ["version"]
    again = MadeWith.model_validate_json(before.model_dump_json())
    assert differences(before, again) == []
