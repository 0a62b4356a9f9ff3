# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import signal
import subprocess
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset

OPTIONS = ("--deterministic-uids", "--preset", "ct-soft", "--threshold", "0.5")
SIZE = (8, 10)
N_INPUTS = 10


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> Path:
    """Nine stacks and a film."""
    folder = tmp_path_factory.mktemp("interrupted") / "in"
    for number in range(N_INPUTS - 1):
        phantoms.make_series(folder / str(number), seed=str(number), study=str(number % 3), count=3, size=SIZE)
    phantoms.make_cine(folder / "film", size=SIZE, count=3)
    return folder


@pytest.fixture(scope="module")
def config(quick_config: Callable[..., Path]) -> Path:
    return quick_config(SIZE)


@pytest.fixture(scope="module")
def whole(
    tree: Path, config: Path, predict: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a run that nothing interrupts leaves."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert predict(tree, output, *OPTIONS, config=config) == 0
    return contents(output)


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """Processes that start with everything imported, but with nothing that a fork would break."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["signalled_run", "monai_anomalyclip.cli.program", "monai.bundle", "brightness_network"]
    )
    return context


def contents(folder: Path) -> dict[str, Any]:
    """All visible files, parsed to the end, without what tells the time of the run."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        unfinished = any(part.startswith(".unfinished") for part in path.relative_to(folder).parts)
        if path.is_file() and not unfinished and not name.startswith(".report/left"):
            found[name] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".dcm":
        dataset = pydicom.dcmread(path)
        if "Rows" in dataset:
            assert dataset.pixel_array.size
        _forget_times(dataset)
        return dataset.to_json()
    if path.name.endswith(".nii.gz"):
        assert np.isfinite(np.asarray(nib.load(path).dataobj)).all()
    elif path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    elif path.suffix == ".csv":
        rows = list(csv.reader(path.open(newline="")))
        assert len({len(row) for row in rows}) == 1
    elif path.suffix == ".html":
        text = path.read_text()
        assert text.rstrip().endswith("</html>")
        return text.count("data:image/jpeg")
    return path.read_bytes()


def _forget_times(dataset: Dataset) -> None:
    for element in list(dataset):
        if element.VR in ("DA", "TM", "DT"):
            del dataset[element.tag]
        elif element.VR == "SQ":
            for item in element.value:
                _forget_times(item)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in ("started", "duration_s", "timings", "files")}
        return {key: _without_times(item) for key, item in kept.items()}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def finished(folder: Path) -> dict[str, int]:
    """Files of the inputs that are done, with the time of their last change."""
    states = [json.loads(path.read_bytes()) for path in folder.glob("[!.]*_record.json")]
    files = [file for state in states if state["state"] == "finished" for file in state["files"]]
    for file in files:
        content = (folder / file["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    return {file["path"]: (folder / file["path"]).stat().st_mtime_ns for file in files}


def assert_the_next_run_completes(
    tree: Path, output: Path, config: Path, predict: Callable[..., int], whole: dict[str, Any]
) -> None:
    before = finished(output)
    assert predict(tree, output, *OPTIONS, config=config) == 0
    after = finished(output)
    assert {name: after[name] for name in before} == before  # not even touched
    again = contents(output)
    assert set(again) == set(whole)
    assert [name for name in whole if again[name] != whole[name]] == []


@pytest.mark.parametrize(
    ("place", "count", "number"),
    [
        ("rename", 4, signal.SIGKILL),
        ("rename", 27, signal.SIGKILL),
        ("rename", 34, signal.SIGINT),
        ("score", 6, signal.SIGKILL),
        ("score", 9, signal.SIGINT),
        ("score", 9, signal.SIGTERM),
        ("rename", 34, signal.SIGHUP),
    ],
)
def test_whenever_it_stops_the_next_run_completes_the_rest(
    tree: Path,
    config: Path,
    whole: dict[str, Any],
    predict: Callable[..., int],
    command_line: Callable[..., list[str]],
    context: ForkServerContext,
    tmp_path: Path,
    place: str,
    count: int,
    number: signal.Signals,
) -> None:
    from signalled_run import run_until

    output = tmp_path / "out"
    arguments = command_line(tree, output, *OPTIONS, config=config)
    process = context.Process(target=run_until, args=(arguments, place, count, number))
    process.start()
    process.join()
    assert process.exitcode == (-number if number == signal.SIGKILL else 128 + number)

    left = contents(output)  # every file parses
    done = finished(output)
    records = {Path(name).name for name in done}
    assert len(records) < len(
        [name for name in whole if name.startswith(("ct_", "us_")) and not name.endswith("_record.json")]
    )
    if count > 5:
        assert done
    assert set(left) <= set(whole)
    assert [name for name in done if left[name] != whole[name]] == []
    hidden = [path.name for path in output.rglob(".unfinished*")]
    if number != signal.SIGKILL:
        assert hidden == []
        assert {"results.json", "report.html", "scores.csv"} <= set(left)
    assert_the_next_run_completes(tree, output, config, predict, whole)
    assert list(output.rglob(".unfinished*")) == []  # nor what the killed process was writing


def test_interrupted_from_the_keyboard(
    tree: Path,
    config: Path,
    whole: dict[str, Any],
    predict: Callable[..., int],
    command_line: Callable[..., list[str]],
    python_apart: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    # The signal comes from the process itself, at a place where some inputs are done and others are not: one from here
    # would come whenever this process gets its turn.
    arguments = command_line(tree, output, *OPTIONS, config=config)
    script = f"from signalled_run import run_until; run_until({arguments}, 'score', 4, {int(signal.SIGINT)})"
    process = python_apart("-c", script)
    _, said = process.communicate()
    # 130, or the signal itself: Python hands it on when it has passed through code that MONAI evaluates. To a shell
    # both are 130.
    assert process.returncode in (130, -signal.SIGINT), said
    assert "Interrupted: what is finished is kept" in said
    assert "Traceback" not in said
    summary = json.loads((output / "results.json").read_text())["summary"]
    assert 0 < summary["ok"] < N_INPUTS
    assert summary["failed"] == 0
    assert contents(output).keys() <= whole.keys()
    assert_the_next_run_completes(tree, output, config, predict, whole)
    complete = finished(output)
    assert predict(tree, output, *OPTIONS, config=config) == 0
    assert finished(output) == complete
