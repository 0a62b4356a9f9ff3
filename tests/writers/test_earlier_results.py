# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.sources import FrameSource
from monai_anomalyclip.writers.earlier_results import (
    InputChangedError,
    earlier_outputs,
    finished_entry,
    refuse_mixture,
    refused_item,
    still_counts,
)
from monai_anomalyclip.writers.output_folder import OutputFolder

SETTINGS = {"threshold": 0.5, "axis": (0, 1)}


@pytest.fixture
def source(tmp_path: Path) -> FrameSource:
    (tmp_path / "doe.png").write_bytes(b"picture")
    return FrameSource(tmp_path / "doe.png", "doe.png")


@pytest.fixture
def folder(tmp_path: Path, source: FrameSource) -> OutputFolder:
    """Holds the results of one input, "a"."""
    folder = OutputFolder(tmp_path / "out")
    fingerprint = {"threshold": 0.5, "axis": [0, 1]}
    record = {"outputs": ["a_mask.png", "a_overlay.png"]}
    folder.journal.add(
        {"name": "a", "status": "ok", "fingerprint": fingerprint, "state": source.state(), "record": record}
    )
    for name in record["outputs"]:
        (folder.path / name).touch()
    return folder


def test_what_still_counts(folder: OutputFolder, source: FrameSource) -> None:
    assert still_counts(folder, "a", SETTINGS, source)
    assert not still_counts(folder, "b", SETTINGS, source)
    with pytest.raises(
        FileExistsError, match="of 'a' that differ in sigma, threshold: choose another folder"
    ) as caught:
        still_counts(folder, "a", {**SETTINGS, "threshold": 1, "sigma": 4}, source)
    assert not isinstance(caught.value, InputChangedError)
    source.paths[0].write_bytes(b"another")
    with pytest.raises(InputChangedError, match="of 'a' that differ in the input's files: choose"):
        still_counts(folder, "a", SETTINGS, source)
    with pytest.raises(FileExistsError, match="of 'a' that differ in threshold, the input's files: choose") as caught:
        still_counts(folder, "a", {**SETTINGS, "threshold": 1}, source)
    assert not isinstance(caught.value, InputChangedError)


def test_files_that_were_removed(folder: OutputFolder, source: FrameSource) -> None:
    (folder.path / "a_mask.png").unlink()
    assert not still_counts(folder, "a", SETTINGS, source)
    with pytest.raises(FileExistsError, match="threshold"):
        still_counts(folder, "a", {"axis": [0, 1]}, source)
    (folder.path / "a_overlay.png").unlink()
    assert not still_counts(folder, "a", {}, source)


def test_one_kind_of_results_per_folder(folder: OutputFolder) -> None:
    refuse_mixture(folder, {"b"}, SETTINGS)
    refuse_mixture(folder, {"a", "b"}, {})
    with pytest.raises(FileExistsError, match="'a', which is not among these inputs, that differ in axis, threshold: "):
        refuse_mixture(folder, {"b"}, {})
    for name in ("a_mask.png", "a_overlay.png"):
        (folder.path / name).unlink()
    refuse_mixture(folder, {"b"}, {})
    (folder.path / "a_mask.png").touch()
    folder.journal.add({"name": "a", "status": "failed"})
    refuse_mixture(folder, {"b"}, {})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, []),
        ({"status": "ok", "record": {"outputs": ["a"]}}, ["a"]),
        ({"status": "started", "outputs": ["a"]}, ["a"]),
        ({"status": "failed", "record": {"outputs": []}, "outputs": ["a"]}, ["a"]),
        ({"status": "failed", "record": {"outputs": []}}, []),
        ({"status": "failed", "earlier": {"status": "ok", "record": {"outputs": ["a"]}}}, ["a"]),
    ],
)
def test_files_that_are_there(entry: dict[str, Any], expected: list[str]) -> None:
    assert earlier_outputs(entry) == expected
    assert (finished_entry(entry) is None) == (entry.get("status") != "ok" and "earlier" not in entry)


def test_refused_items_say_why_also_in_a_worker(source: FrameSource) -> None:
    item = pickle.loads(pickle.dumps(refused_item("a", source, "They differ.")))
    assert (item["name"], item["part"], item["parts"]) == ("a", 0, 1)
    assert (item["image"].source.kind, item["image"].source.key) == ("frame", source.key)
    with pytest.raises(UnreadableInputError, match=r"They differ\."):
        item["image"].load()
