# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_anomalyclip.experiments.reproduce import Experiment, Group, Table


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
