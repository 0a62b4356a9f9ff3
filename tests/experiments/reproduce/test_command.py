# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.experiments.reproduce import TABLES
from monai_anomalyclip.experiments.reproduce import command as reproduce

NO_PICTURES = {"validate#handlers": []}  # of curves and worst cases, which take longer than the evaluation


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="monai-anomalyclip")
    reproduce.add_command(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["reproduce", *arguments])
    status: int = parsed.run(parsed)
    return status


def test_help_shows_examples_and_the_research_notice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert " ".join(RESEARCH_USE_ONLY.split()) in " ".join(shown.split())
    assert "monai-anomalyclip reproduce demo -o runs/reproduce" in shown


def test_list_of_tables_and_of_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in TABLES)
    assert "verified" not in shown
    assert re.search(r"^1 +14 +171 +industrial data sets", shown, re.MULTILINE)
    assert re.search(r"^figure-6 +6 +DPAM", shown, re.MULTILINE)
    assert run("5", "--list") == 0
    shown = capsys.readouterr().out
    assert shown.count("experiments/loss_local") == 2
    assert RESEARCH_USE_ONLY in shown


def test_runs_prints_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_datalist(tmp_path / "data", training=8, validation=4, testing=8, progress=False)
    quick = tmp_path / "quick.json"
    quick.write_text(json.dumps(NO_PICTURES))
    command = ["demo", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out"), "--methods", "clip"]
    command += ["--config", str(quick), "--device", "cpu"]
    assert run(*command) == 0
    shown = capsys.readouterr().out
    assert "[1/1] untuned/clip" in shown
    assert "| CLIP | mean |" in shown
    assert shown.endswith(f"{RESEARCH_USE_ONLY}\n\n")
    first = json.loads((tmp_path / "out" / "demo.json").read_text())
    rows = [row for group in first["groups"] for row in group["rows"]]
    assert [row["tested_on"] for row in rows] == ["endoscopy", "brain_mr", "head_ct", "chest_xray", "mean"]
    assert all(0 <= row["metrics"]["image_auroc"]["mean"] <= 100 for row in rows)
    assert first["settings"]["epochs"] == 5
    noted = json.loads((tmp_path / "out/runs/untuned/clip/endoscopy/result.json").read_text())
    assert noted["settings"]["class words"] == {}
    assert run(*command) == 0
    assert "tested already" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "demo.json").read_text()) == first
    # In another precision it is another run, with figures that differ a little.
    assert run(*command, "--precision", "bfloat16") == 0
    assert "tested already" not in capsys.readouterr().out
    coarse = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert (first["settings"]["precision"], coarse["settings"]["precision"]) == (None, "bfloat16")
    figures = [
        [row["metrics"]["pixel_auroc"]["mean"] for group in one["groups"] for row in group["rows"]]
        for one in (first, coarse)
    ]
    assert figures[0] != figures[1]
    assert figures[0] == pytest.approx(figures[1], abs=0.5)


def test_status_says_that_nothing_could_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert run("9", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")) == 1
    shown = capsys.readouterr()
    assert "- not run: mvtec: there is no datalist mvtec.json" in shown.out
    assert "nothing could be run" in shown.err
    rows = json.loads((tmp_path / "out" / "table-9.json").read_text())["groups"][0]["rows"]
    assert len(rows) == 4
    assert all(value.keys() == {"paper", "paper_source"} for row in rows for value in row["metrics"].values())


def test_status_says_that_something_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_datalist(tmp_path / "data", training=8, validation=4, testing=4, progress=False)
    broken = tmp_path / "broken.json"
    # The overlay of WinCLIP says how maps are smoothed, that of CLIP does not, which fails.
    broken.write_text(json.dumps({**NO_PICTURES, "sigma": -1.0}))
    command = ["demo", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out"), "--methods", "clip,winclip"]
    assert run(*command, "--config", str(broken), "--device", "cpu") == 1
    shown = capsys.readouterr().out
    assert "- failed: " in shown
    assert "| WinCLIP | mean |" in shown
    assert "| CLIP |" not in shown


@pytest.mark.parametrize("wrong", [["27"], ["1", "--methods", "padim"], ["1", "--device", "$exit()"]])
def test_wrong_usage_is_status_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*wrong)
    assert ended.value.code == 2


def test_table_and_output_are_needed() -> None:
    with pytest.raises(ValueError, match="Give a TABLE and -o OUT"):
        run("1")
