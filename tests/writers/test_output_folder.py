# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.writers import InputRecord, InputState, OutputFolder, RunDocument, output_folder
from monai_anomalyclip.writers.finished import Slices, alone, read_state
from monai_anomalyclip.writers.output_folder import DEFAULT_OUTPUTS, OUTPUT_KINDS, parse_output_kinds
from monai_anomalyclip.writers.record import MadeWith, Model
from monai_anomalyclip.writers.tables import made_with


def made(**settings: Any) -> MadeWith:
    return made_with(Model(backbone="b", backbone_sha256="0" * 64), settings, "cpu")


def state_of(name: str, outputs: Sequence[str], **settings: Any) -> InputState:
    record = InputRecord(
        name=name, source="frame", kind="frame", files_used=1, frames=1, scores=[0.5], anomaly_score=0.5,
        map_max=0.5, threshold=0.5, anomalous_fraction=0.0, outputs=outputs,
        timings={"read_s": 1, "score_s": 2, "write_s": 3},
    )  # fmt: skip
    slices = Slices(map_max=(0.5,), area_fraction=(0.0,))
    started = datetime(2026, 1, 2, tzinfo=timezone.utc).isoformat()
    return InputState(
        name=name, state="finished", made_with=made(**settings), slices=slices, record=record, started=started
    )


def publish(
    folder: OutputFolder, name: str, content: bytes = b"x", suffixes: Sequence[str] = ("_a.png",), **settings: Any
) -> None:
    staging = folder.stage(name)
    outputs = [name + suffix for suffix in suffixes]
    for output in outputs:
        (staging / output).parent.mkdir(exist_ok=True)
        (staging / output).write_bytes(content)
    with alone(folder.path):
        folder.publish(state_of(name, outputs, **settings), outputs)
    folder.unstage(name)


def visible(folder: Path) -> list[str]:
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not path.startswith("."))


def test_a_new_folder_is_its_owners_alone_and_says_what_it_holds(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "deep" / "out")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert visible(folder.path) == ["NOTICE.txt"]
    assert RESEARCH_USE_ONLY in (folder.path / "NOTICE.txt").read_text()
    assert folder.states() == {}


def test_files_come_into_place_and_stale_ones_go(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    publish(folder, "sub/a", suffixes=("_a.png", "_b.png"))
    state = folder.state("sub/a")
    assert state is not None
    assert [file.path for file in state.files] == ["sub/a_a.png", "sub/a_b.png"]
    (tmp_path / "sub" / "a_c.png").write_bytes(b"drawn by hand")
    publish(folder, "sub/a", b"new", suffixes=("_b.png",))
    assert visible(tmp_path) == ["NOTICE.txt", "sub/a_b.png", "sub/a_c.png", "sub/a_record.json"]
    assert (tmp_path / "sub" / "a_b.png").read_bytes() == b"new"
    assert list(tmp_path.rglob(".unfinished*")) == []


def test_killed_while_files_are_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record then says so, and names the files that may be replaced, the old ones and the new."""
    folder = OutputFolder(tmp_path)
    publish(folder, "a", suffixes=("_a.png", "_b.png"))
    replaced = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "a_c.png":
            raise KeyboardInterrupt
        replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(folder, "a", b"new", suffixes=("_b.png", "_c.png"))
    state = OutputFolder(tmp_path).state("a")
    assert state is not None
    assert (state.state, state.record) == ("unfinished", None)
    assert {file.path for file in state.files} == {"a_a.png", "a_b.png", "a_c.png"}
    publish(folder, "a", b"new", suffixes=("_b.png", "_c.png"))
    assert visible(tmp_path) == ["NOTICE.txt", "a_b.png", "a_c.png", "a_record.json"]


def test_records_of_pictures_are_read_once_for_tables_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = OutputFolder(tmp_path)
    for name in ("a", "b"):
        publish(folder, name)
    read: list[str] = []

    def counted(path: Path, name: str) -> InputState | None:
        read.append(name)
        return read_state(path, name)

    monkeypatch.setattr(output_folder, "read_state", counted)
    document = folder.summarise().document
    assert [record.name for record in document.inputs] == ["a", "b"]
    assert read == ["a", "b"]


def test_tables_are_made_from_the_records_whoever_wrote_them(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    for name in ("c", "removed", "a"):
        publish(folder, name)
    (tmp_path / "removed_a.png").unlink()
    folder.put(InputState(name="cut", state="unfinished"))
    failed = InputRecord(name="b", source="nifti", status="failed", reason="It is cut.")
    folder.put(InputState(name="b", state="failed", made_with=made(), record=failed))
    folder.keep_picture("a", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "wrong_record.json").write_text("{}")
    document, damaged, _ = folder.summarise(None, "these inputs", {"localizer series": 1, "unreadable": 2})
    folder.summarise(None, "these inputs", {"localizer series": 1, "unreadable": 1})  # the same once more
    document, *_ = OutputFolder(tmp_path).summarise(None, "others", {"unreadable": 4})
    assert list(damaged) == ["wrong"]
    with (tmp_path / "scores.csv").open(newline="") as table:
        assert [(row["name"], row["status"]) for row in csv.DictReader(table)] == [
            ("a", "ok"), ("b", "failed"), ("c", "ok"), ("cut", "unfinished"), ("wrong", "failed"),
        ]  # fmt: skip
    assert RunDocument.read(tmp_path / "results.json") == document
    assert [record.name for record in document.inputs] == ["a", "b", "c"]
    assert document.skipped == {"localizer series": 1, "unreadable": 5}
    assert (document.started, document.duration_s) == ("2026-01-02T00:00:00+00:00", 12.0)
    assert (tmp_path / "report.html").read_text().count("data:image/jpeg;base64,") == 2  # and a thumbnail
    for name in ("scores.csv", "results.json", "report.html"):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        OutputFolder(tmp_path, make=False).summarise()
        assert (tmp_path / name).read_bytes() == before


def test_results_of_two_kinds_have_no_table(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    publish(folder, "a", threshold=0.5)
    publish(folder, "b", threshold=0.4)
    with pytest.raises(FileExistsError, match=r"that differ in threshold \('a' and 'b'\), but its tables name one"):
        folder.summarise()
    first = folder.state("a")
    assert first is not None
    folder.put(first.model_copy(update={"made_with": None}))  # of which nothing is known, hides the others' difference
    publish(folder, "c", threshold=0.5)
    with pytest.raises(FileExistsError, match=r"that differ in threshold \('b' and 'c'\)"):
        folder.summarise()
    (tmp_path / "b_record.json").unlink()
    document, *_ = folder.summarise()
    assert (document.summary.ok, document.settings["threshold"]) == (2, 0.5)


def test_without_results_there_is_nothing_to_make_tables_from(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"There are no results in .*: give the output folder of a run"):
            OutputFolder(path, make=False)
    assert list(tmp_path.iterdir()) == []
    folder = OutputFolder(tmp_path)
    folder.put(InputState(name="a", state="unfinished"))
    with pytest.raises(ValueError, match="says what was found: run predict again"):
        folder.summarise()
    document, *_ = folder.summarise(made())
    assert document.summary.inputs == 0


@pytest.mark.parametrize("name", ["scores.csv", "results.json", "report.html", "NOTICE.txt"])
def test_files_of_another_program_are_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a,b\n")
    with pytest.raises(ValueError, match=f"{name}' in the output folder is not .* choose another output folder"):
        OutputFolder(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "a,b\n")]


def test_results_of_the_first_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"name":"ct-1_0a1b2c3d","status":"ok"}\n')
    with pytest.raises(ValueError, match=r"holds results of version 0\.1\.0, which this version can neither"):
        OutputFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]
    (tmp_path / "journal.jsonl").write_text("of another program\n")
    OutputFolder(tmp_path)


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/nothing")):
        with pytest.raises(OSError, match=r"Cannot write to the output folder .* choose another one"):
            OutputFolder(path)


def test_a_full_disk_and_a_folder_that_vanished_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = OutputFolder(tmp_path / "out")
    publish(folder, "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("monai_anomalyclip.writers.output_folder.write_html_report", full)
        with pytest.raises(OSError, match=r"cannot be written .*\(No space left on device\): what is finished is kept"):
            folder.summarise()
    for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "out").rmdir()
    with pytest.raises(OSError, match=r"^Tables and report cannot be written .*\(No such file or directory\)"):
        folder.summarise(made())


def publish_often(path: Path, content: bytes, barrier: Any) -> None:
    folder = OutputFolder(path)
    barrier.wait()
    for _ in range(30):
        publish(folder, "a", content, suffixes=("_a.png", "_b.png", "_c.png"))


def test_two_processes_with_one_input_leave_one_whole_result(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no locks on this system")
    OutputFolder(tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=publish_often, args=(tmp_path, content, barrier)) for content in (b"1", b"22")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    state = OutputFolder(tmp_path).state("a")
    assert state is not None
    assert (state.state, state.altered(tmp_path)) == ("finished", [])
    assert len({(tmp_path / file.path).read_bytes() for file in state.files}) == 1
    assert visible(tmp_path) == ["NOTICE.txt", "a_a.png", "a_b.png", "a_c.png", "a_record.json"]


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ("default", ("nifti", "seg", "sr", "png")),
        (["default"], ("nifti", "seg", "sr", "png")),
        ("pm,default", ("nifti", "seg", "sr", "png", "pm")),
        ("sc, NIfTI ,sc", ("nifti", "sc")),
        (["seg", "nifti"], ("nifti", "seg")),
        ("png,", ("png",)),
        (OUTPUT_KINDS, OUTPUT_KINDS),
        (DEFAULT_OUTPUTS, DEFAULT_OUTPUTS),
    ],
)
def test_kinds_are_put_in_order(given: str | Sequence[str], kinds: tuple[str, ...]) -> None:
    assert parse_output_kinds(given) == kinds
    assert parse_output_kinds(parse_output_kinds(given)) == kinds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "",
            "Unknown output nothing: choose from default, nifti, seg, sr, png, heat16, map32, fractional, levels, "
            "pm, sc",
        ),
        ([], "Unknown output nothing"),
        (" , ", "Unknown output nothing"),
        ("nifti,jpeg,avi", "Unknown output avi, jpeg: choose"),
        ("nifti seg", "Unknown output nifti seg: choose"),
    ],
)
def test_unknown_kinds_and_none_are_refused(given: str | Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_output_kinds(given)
