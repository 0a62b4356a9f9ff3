# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from monai_anomalyclip.experiments.reproduce import Experiment, Group, Table
from monai_anomalyclip.experiments.reproduce.experiment import Spread, mean_over_sets


def test_key_tells_runs_apart_that_differ() -> None:
    rows = [
        Experiment("a", ("visa",), "mvtec"),
        Experiment("a", ("visa",), "colondb-endo"),
        Experiment("a", ("visa",), "mvtec", given_prompts=True),
        Experiment("a", ("visa",), "mvtec", method="vand"),
        Experiment("a", ("visa",), "mvtec", overlays=("experiments/attention_qq",)),
        Experiment("a", ("visa",), "mvtec", overlays=("experiments/attention_qq", "experiments/shared_context")),
        Experiment("a", ("visa",), method="clip"),
    ]
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys)
    assert keys[0] == "mvtec/anomalyclip"
    assert keys[5] == "mvtec/anomalyclip+attention_qq+shared_context"
    assert keys[6] == "untuned/clip"


def test_words_put_in_after_tuning_share_the_tuning_alone() -> None:
    plain, renamed = (Experiment("a", ("visa",), "mvtec", object_words=words) for words in (False, True))
    assert plain.key == plain.tuning_key == renamed.tuning_key != renamed.key
    assert renamed.told_classes
    assert not plain.told_classes
    assert Experiment("a", ("visa",), method="winclip").told_classes


def test_tables_share_the_run_whatever_they_call_it() -> None:
    assert Experiment("default", ("visa",), "mvtec").key == Experiment("vv", ("btad", "visa"), "mvtec").key


def test_methods_come_before_other_overlays() -> None:
    assert Experiment("a", ("visa",), method="clip", overlays=("experiments/x",)).configs == (
        "methods/clip",
        "experiments/x",
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tested_on": ("visa",), "method": "padim"}, "There is no method 'padim'"),
        ({"tested_on": ("visa", "mvtec"), "tuned_on": "mvtec"}, "would be tested on 'mvtec', which it is tuned on"),
        ({"tested_on": ("visa",), "given_prompts": True}, "must say what the given prompts were tuned on"),
    ],
)
def test_refuses_what_makes_no_sense(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Experiment("row", **settings)  # type: ignore[arg-type]


def test_rows_of_some_methods() -> None:
    first, second = Experiment("a", ("visa",), "mvtec"), Experiment("b", ("visa",), method="clip")
    table = Table("t", "T", "", (Group("both", (first, second)), Group("one", (first,))))
    assert table.of_methods(["clip"]).groups == (Group("both", (second,)),)
    assert table.of_methods(["vand"]).experiments == ()


def test_mean_and_range_in_per_cent() -> None:
    values = {111: 0.951, 112: 0.9, 113: 0.96}
    spread = Spread.of_fractions(values)
    assert spread is not None
    assert spread.mean == pytest.approx(100 * np.mean(list(values.values())))
    assert (spread.low, spread.high) == pytest.approx((90.0, 96.0))


def test_undefined_values_are_left_out() -> None:
    spread = Spread.of_fractions({111: math.nan, 112: 0.5})
    assert spread is not None
    assert spread.seeds == {112: 50.0}
    assert Spread.of_fractions({111: math.nan}) is None
    assert Spread.of_fractions({}) is None


def test_mean_over_sets_is_per_seed() -> None:
    first, second = Spread({111: 10.0, 112: 30.0}), Spread({111: 50.0, 112: 40.0})
    mean = mean_over_sets([first, None, second])
    assert mean is not None
    assert mean.seeds == {111: 30.0, 112: 35.0}
    assert (mean.mean, mean.low, mean.high) == (32.5, 30.0, 35.0)


def test_mean_over_sets_takes_the_seeds_of_all() -> None:
    mean = mean_over_sets([Spread({111: 10.0, 112: 30.0}), Spread({112: 40.0})])
    assert mean is not None
    assert mean.seeds == {112: 35.0}
    assert mean_over_sets([Spread({111: 10.0}), Spread({112: 40.0})]) is None
    assert mean_over_sets([None]) is None
