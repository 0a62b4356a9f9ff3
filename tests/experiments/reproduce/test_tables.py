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
from monai_anomalyclip.experiments.reproduce import METHODS, METRICS, TABLES, Table
from monai_anomalyclip.experiments.reproduce.demo_table import INDUSTRIAL_PHANTOMS, MEDICAL_PHANTOMS
from monai_anomalyclip.experiments.reproduce.tables import INDUSTRIAL, MEDICAL

REPOSITORY = Path(__file__).parents[3]
PAPER = [table for table in TABLES.values() if not table.demo]


def test_every_table_that_is_asked_for_is_there() -> None:
    tables = ["1", "2", "3", "4", "5", "7", "9", "10", "11", "13", "14"]
    assert list(TABLES) == [*tables, "figure-6", "figure-8", "demo"]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_table_is_made_of_what_exists(table: Table) -> None:
    names = {INDUSTRIAL_PHANTOMS, *MEDICAL_FAMILIES} if table.demo else set(data_sets())
    for experiment in table.experiments:
        assert {*experiment.tested_on, experiment.tuned_on or experiment.tested_on[0]} <= names
        for overlay in experiment.configs:
            assert (REPOSITORY / "configs" / f"{overlay}.json").is_file()
        if METHODS[experiment.method].tuned and "experiments/fixed_words" not in experiment.overlays:
            assert experiment.tuned_on
        else:
            assert experiment.tuned_on is None
    assert set(table.metrics) <= set(METRICS)
    for group in table.groups:
        assert len({(row.title, row.tuned_on, row.tested_on) for row in group.experiments}) == len(group.experiments)


def test_names_of_overlays_tell_them_apart() -> None:
    """They name folders of runs, without the folder that they lie in."""
    overlays = {name for table in TABLES.values() for experiment in table.experiments for name in experiment.configs}
    assert len({name.rpartition("/")[2] for name in overlays}) == len(overlays)


@pytest.mark.parametrize("table", PAPER, ids=lambda table: table.name)
def test_what_is_not_known_is_marked(table: Table) -> None:
    if table.name not in ("1", "2", "3"):
        assert "not verified against the paper" in table.remark


def test_seventeen_data_sets_and_six_methods() -> None:
    assert {*INDUSTRIAL, *MEDICAL} == set(data_sets()) - {"colondb-endo", "folder"}
    assert len(INDUSTRIAL) + len(MEDICAL) == 17
    for name in ("1", "2", "3"):
        assert {experiment.method for experiment in TABLES[name].experiments} == set(METHODS)
    assert set(METHODS) == {"anomalyclip", "clip", "clip-ac", "coop", "winclip", "vand"}


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
    for table in PAPER:
        assert ("not verified against the paper" in rows[table.name]) == (table.name not in ("1", "2", "3"))
    for path in (REPOSITORY / "configs" / "experiments").rglob("*.json"):
        assert f"`{path.relative_to(REPOSITORY / 'configs' / 'experiments').with_suffix('')}`" in page, path.name
