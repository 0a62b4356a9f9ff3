# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from PIL import Image

Script = Callable[[str], ModuleType]


def test_inputs_are_of_the_sizes_that_are_said(script: Script, tmp_path: Path) -> None:
    benchmark = script("end_to_end")
    assert benchmark.make_pictures(tmp_path / "pictures", 2) == benchmark.total_bytes(tmp_path / "pictures")
    sizes = [Image.open(path).size for path in (tmp_path / "pictures").iterdir()]
    assert sizes == [(800, 600)] * 2
    assert 100_000 < benchmark.total_bytes(tmp_path / "pictures") < 250_000
    benchmark.make_ct(tmp_path / "ct", 3)
    headers = [pydicom.dcmread(path) for path in sorted((tmp_path / "ct").iterdir())]
    assert [header.pixel_array.shape for header in headers] == [(512, 512)] * 3
    assert len({header.SOPInstanceUID for header in headers}) == 3
    assert [float(header.ImagePositionPatient[2]) for header in headers] == [0, 1, 2]
    assert not np.array_equal(headers[0].pixel_array, headers[1].pixel_array)


def test_ratios_of_given_runs(script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """101 pictures in 12 s with 2 s of start are 100 ms each; before, 52 s with 2 s are 500 ms each: five times.

    On the clock they took half as long, with as many workers as were asked for.
    """
    benchmark = script("end_to_end")
    taken = {("this tree", "pictures"): 12.0, ("before", "pictures"): 52.0}

    def run(tree: Path, folder: Path, source: str, results: Path, workers: int) -> dict[str, float]:
        size, seconds = {"this tree": 1e5, "before": 3e5}[tree.name], taken.get((tree.name, source), 2.0)
        return {"cpu_s": seconds, "wall_s": seconds / (2 + workers), "peak_mib": 100.0, "bytes": size}

    monkeypatch.setattr(benchmark, "run", run)
    trees = {name: (tmp_path / name, 0) for name in ("this tree", "before")}
    trees["this tree, 2 workers"] = tmp_path / "this tree", 2
    found = benchmark.compared(trees, 2, tmp_path, "pictures", 101, 1010)
    assert found["this tree"]["cpu_ms_each"] == pytest.approx(100)
    assert found["before"]["cpu_ms_each"] == pytest.approx(500)
    assert found["ratio"] == pytest.approx(
        {
            **{"cpu_s": 52 / 12, "cpu_ms_each": 5, "wall_s": 52 / 12, "wall_ms_each": 5, "cpu_ms_each_least": 5},
            **{"peak_mib": 1, "bytes": 3},
        }
    )
    assert found["this tree, 2 workers"]["wall_ms_each"] == pytest.approx(25)
    assert found["input_bytes_each"] == 10
    table = benchmark.table("pictures", found)
    assert "| ratio | 5.00 | 5.00 | 4.33 | 4.33 | 1.00 | 3.00 |" in table
    assert "| this tree, 2 workers | 100.0 | 25.0 |" in table


@pytest.mark.parametrize(("each", "rate"), [(70, 250), (20, 400)])
def test_what_is_calculated(script: Script, each: float, rate: float) -> None:
    """16 ms of the stages that are needed; 15 cores for all but the network, whose rate is the limit."""
    milliseconds = {"decode": 1.0, "network": 10.0, "cheapest encoding": 5.0, "write": 99.0}
    assert list(script("end_to_end").calculated(milliseconds, each).values()) == pytest.approx([16 / each, rate])


def test_a_run_of_pictures(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two real processes, on two pictures and on one."""
    file = tmp_path / "figures.json"
    assert script("end_to_end").main(["--pictures", "2", "--slices", "0", "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    own = record["pictures"]["this tree"]
    assert own["cpu_s"] > 0
    assert own["peak_mib"] > 50
    assert own["bytes_each"] * 2 == own["bytes"] > 10_000
    assert set(record["stages"]) == {
        *("decode", "network", "cheapest encoding", "read and score", "score", "write"),
    }
    assert len(record["calculated"]) == 2
    assert "ct" not in record
    assert "| this tree |" in capsys.readouterr().out


def test_a_run_that_fails_is_said(script: Script, tmp_path: Path) -> None:
    benchmark = script("end_to_end")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError, match=r"predict of .* failed: (?s:.)*error:"):
        benchmark.run(benchmark.TREE, tmp_path, "nothing", tmp_path / "out" / "all")
