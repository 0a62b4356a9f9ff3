# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import dataclasses

import pytest

from monai_anomalyclip.cli.options import add_reading_options, matching, reading_options
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
