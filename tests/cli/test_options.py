# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.options import add_model_options, add_reading_options, matching, reading_options, run_options
from monai_anomalyclip.data import ReadOptions


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_reading_options(parser)
    return parser.parse_args(arguments)


def test_nothing_said_leaves_the_defaults() -> None:
    assert reading_options(parse()) == {}
    assert ReadOptions(**reading_options(parse())) == ReadOptions()
    assert (parse().series, parse().keep_names, parse().slice_axis) == ([], None, None)


def test_what_is_said_reaches_the_readers() -> None:
    said = parse("--preset", "ct-lung", "--nifti-form", "qform", "--time-point", "0", "--stride", "2")
    assert ReadOptions(**reading_options(said)) == ReadOptions("ct-lung", "qform", 0, 2)
    assert set(reading_options(said)) == {field.name for field in dataclasses.fields(ReadOptions)}
    assert parse("--series", "1.2.3", "--series", "4").series == ["1.2.3", "4"]


def test_patterns_that_monai_would_evaluate_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--exclude", "*scout*", "--exclude", "old/[$]*").exclude == ["*scout*", "old/[$]*"]
    for text in ("$1+1", "@network", "%file"):
        with pytest.raises(SystemExit):
            parse("--exclude", text)
        assert f"write [{text[0]}] for that character" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"[a-z-]+", ["auto", "ct-lung"], ["", "$x", "@x", "ct lung", "auto\n", "%x"]),
        (r"cpu|mps|cuda(:\d+)?", ["cpu", "cuda", "cuda:12"], ["cuda:", "cpu ", "cuda:1$", "$cpu"]),
    ],
)
def test_only_texts_of_a_pattern_pass(pattern: str, good: list[str], bad: list[str]) -> None:
    value = matching(pattern)
    for text in good:
        assert value(text) == text
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="does not look like a value of this option"):
            value(text)


def test_what_is_said_and_what_is_not() -> None:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    plain = run_options(parser.parse_args([]), {"outputs": ["seg"]})
    assert (plain.bundle, plain.configs, plain.ids) == (None, (), {"keep_names": False, "outputs": ["seg"]})
    words = ["--bundle", "b", "--prompts", "p.pt", "--preset", "ct-lung", "--device", "cpu", "--config", "c.json"]
    said = run_options(parser.parse_args(words), {})
    assert (said.bundle, said.prompts, said.configs) == (Path("b"), Path("p.pt"), (Path("c.json"),))
    assert said.ids == {"reading#preset": "ct-lung", "device": "cpu", "keep_names": False}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "0/4", "studies"], "Part 0 of 4 does not exist"),
        (["--part", "4", "studies"], "A part is written K/N"),
        (["--part", "auto", "studies"], "finds no RANK"),
        ([], "give INPUT, or --list FILE"),
        (["studies", "--list", "work.jsonl"], "INPUT and --list"),
        (["studies", "--cluster", "local:2", "--part", "1/2"], "--cluster and --part, --links"),
        (["studies", "--cluster", "local:2", "--links", "links.csv"], "--cluster and --part, --links"),
        (
            ["studies", "--cluster", "local:2", "--normals", "n", "--cohort"],
            "--cluster and --normals, --cohort: make",
        ),
        (["studies", "--cluster", "local:2", "--calibrate-on", "n"], "--cluster and --calibrate-on"),
        (["studies", "--cluster", "local:2", "--clip", "c.pt", "--fuse", "fisher"], "--cluster and --clip, --fuse"),
        (["--list", "work.jsonl", "--series", "1.2", "--keep-names"], "--series, --keep-names and --list"),
    ],
)
def test_wrong_usage_is_status_2(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as left:
        main(["predict", *words, "-o", str(tmp_path / "out")])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
