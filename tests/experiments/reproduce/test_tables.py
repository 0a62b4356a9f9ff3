# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from monai_anomalyclip.data.datasets import data_sets
from monai_anomalyclip.demo.phantoms import MEDICAL_FAMILIES
from monai_anomalyclip.experiments.reproduce import METHODS, TABLES, Table
from monai_anomalyclip.experiments.reproduce.experiment import LABELS
from monai_anomalyclip.experiments.reproduce.tables import INDUSTRIAL, INDUSTRIAL_PHANTOMS, MEDICAL, MEDICAL_PHANTOMS

REPOSITORY = Path(__file__).parents[3]
PAPER = [table for table in TABLES.values() if not table.demo]


def test_every_table_that_is_asked_for_is_there() -> None:
    assert list(TABLES) == [
        *map(str, range(1, 27)),
        "figure-5",
        "figure-6",
        "figure-8",
        "figure-9",
        "check",
        "own",
        "demo",
    ]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_table_is_made_of_what_exists(table: Table) -> None:
    names = {INDUSTRIAL_PHANTOMS, *MEDICAL_FAMILIES} if table.demo else {*data_sets(), "own"}
    assert table.experiments
    for experiment in table.experiments:
        assert {*experiment.tested_on, experiment.tuned_on or experiment.tested_on[0]} <= names
        for overlay in experiment.configs:
            assert (REPOSITORY / "configs" / f"{overlay}.json").is_file()
        untuned = {"experiments/fixed_words", "experiments/untuned"} & set(experiment.overlays)
        if METHODS[experiment.method].tuned and not untuned and table.name != "6":
            assert experiment.tuned_on
        else:
            assert experiment.tuned_on is None
        assert not table.per_class or len(experiment.tested_on) == 1
    assert set(table.metrics) <= set(LABELS)
    for group in table.groups:
        assert len({(row.title, row.tuned_on, row.tested_on) for row in group.experiments}) == len(group.experiments)


def test_names_of_overlays_tell_them_apart() -> None:
    """They name folders of runs, without the folder that they lie in."""
    overlays = {name for table in TABLES.values() for experiment in table.experiments for name in experiment.configs}
    assert len({name.rpartition("/")[2] for name in overlays}) == len(overlays)


def test_nothing_is_said_of_a_paper_that_is_not_at_hand() -> None:
    for table in PAPER:
        assert "verified" not in table.remark
        assert "not known" not in table.remark + table.varies


def test_seventeen_data_sets_and_six_methods() -> None:
    assert {*INDUSTRIAL, *MEDICAL} == set(data_sets()) - {"colondb-endo", "folder"}
    assert len(INDUSTRIAL) + len(MEDICAL) == 17
    zero_shot = {"anomalyclip", "clip", "clip-ac", "coop", "winclip", "vand"}
    for name in ("1", "2", "3", *map(str, range(15, 27))):
        assert {experiment.method for experiment in TABLES[name].experiments} == zero_shot
    assert set(METHODS) == {*zero_shot, "retrieval", "patchcore", "rd4ad", "own-normals"}
    assert "retrieval" in {experiment.method for experiment in TABLES["demo"].experiments}
    assert {row.method for row in TABLES["12"].experiments} == {"anomalyclip", "patchcore", "rd4ad"}


def test_ablations_vary_what_the_paper_varies() -> None:
    """Rows as the paper has them, and which settings of the network and the loss they change."""

    def overlays(name: str) -> dict[str, set[tuple[str, ...]]]:
        rows: dict[str, set[tuple[str, ...]]] = {}
        for row in TABLES[name].experiments:
            rows.setdefault(row.title, set()).add(tuple(one.rpartition("/")[2] for one in row.overlays))
        return rows

    assert overlays("5") == {
        "neither": {("untuned",)},
        "global": {("loss_global",)},
        "local": {("loss_local",)},
        "local and global": {()},
    }
    full = "paper_text"
    assert overlays("7") == {
        "all": {(full,)},
        "without T1": {(full, "attention_qk")},
        "without T2": {(full, "fixed_context")},
        "without T3": {(full, "no_deep_tokens")},
        "without T4": {()},
    }
    assert set(overlays("10")) == {"Q-K", "V-V", "Q-Q, K-K, V-V", "Q-K, Q-Q, K-K, V-V"}
    assert set(overlays("11")) == {"neither", "Dice", "focal", "focal and Dice"}
    words = ["damaged", "anomalous", "flawed", "defective", "blemished"]
    assert list(overlays("13")) == list(overlays("14")) == words
    for name in ("4", "5", "7", "9", "10", "11"):
        assert {test for row in TABLES[name].experiments for test in row.tested_on} == {"mvtec", "visa"}
    assert {test for row in TABLES["13"].experiments for test in row.tested_on} == set(INDUSTRIAL)
    assert {test for row in TABLES["14"].experiments for test in row.tested_on} == set(MEDICAL)


def test_tables_1_to_3_are_tuned_as_the_paper_says() -> None:
    def tuned(name: str) -> set[tuple[str | None, str]]:
        rows = TABLES[name].experiments
        return {(row.tuned_on, test) for row in rows if row.method == "anomalyclip" for test in row.tested_on}

    others = ("visa", "mpdd", "btad", "sdd", "dagm", "dtd-synthetic")
    assert tuned("1") == {("visa", "mvtec"), *(("mvtec", name) for name in others)}
    assert tuned("2") == {("mvtec", name) for name in MEDICAL}
    assert tuned("3") == {("colondb-endo", name) for name in MEDICAL if name != "cvc-colondb"}


def test_demo_has_the_families_of_the_phantoms() -> None:
    assert MEDICAL_PHANTOMS == MEDICAL_FAMILIES


def test_registry_needs_no_torch() -> None:
    module = "monai_anomalyclip.experiments.reproduce.command"
    code = f"import sys, {module}; print(sorted({{'torch', 'monai'}} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_documentation_names_every_table_and_overlay() -> None:
    page = (REPOSITORY / "docs" / "experiments.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert set(rows) == set(TABLES)
    assert "verified against the paper" not in page
    for path in (REPOSITORY / "configs" / "experiments").rglob("*.json"):
        assert f"`{path.relative_to(REPOSITORY / 'configs' / 'experiments').with_suffix('')}`" in page, path.name
