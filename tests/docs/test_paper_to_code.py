# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""docs/appendix/paper_to_code.md and docs/architecture.md: what they name exists, and has the values that they say."""

from __future__ import annotations

import importlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from monai_anomalyclip.experiments.reproduce import TABLES

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "appendix" / "paper_to_code.md").read_text()

FILE = r"(?:monai_anomalyclip|configs|bundles|docs|notebooks|tests)/[\w./-]+"
FILES = sorted(set(re.findall(f"`({FILE})`", PAGE)))
NAMES = sorted(
    (file, name.strip("` "))
    for file, names in re.findall(r"`(monai_anomalyclip/[\w./]+\.py)`: (`[\w.]+`(?:, `[\w.]+`)*)", PAGE)
    for name in names.split(",")
)


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the table of a section, without its head."""
    found = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1:]]


@lru_cache(maxsize=1)
def config() -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(REPOSITORY / "bundles" / "anomalyclip" / "configs" / "train.json")
    return parser


@pytest.mark.parametrize("file", FILES)
def test_file_exists(file: str) -> None:
    assert (REPOSITORY / file).exists()


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_name_is_in_its_file(file: str, name: str) -> None:
    found: Any = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 60
    assert len(NAMES) >= 10


@pytest.mark.parametrize("row", rows("Hyper-parameters"), ids=lambda row: row[0])
def test_hyper_parameter_is_set_as_said(row: list[str]) -> None:
    ids = re.findall(r"`([^`]+)`", row[2])
    values = [json.loads(value) for value in re.findall(r"`([^`]+)`", row[3])]
    assert ids
    for identifier in ids:
        assert identifier in config()
    if values:
        assert [config()[identifier] for identifier in ids] == values


def test_every_setting_of_the_method_is_listed() -> None:
    named = set(re.findall(r"`((?:network_def|backbone|optimizer)#\w+|[a-z_]+)`", section("Hyper-parameters")))
    network = {f"network_def#{key}" for key in config()["network_def"]} - {
        "network_def#_target_",
        *(f"network_def#{key}" for key in config()["backbone"]),
    }
    assert network | {f"backbone#{key}" for key in config()["backbone"]} <= named
    assert {"lambda_local", "learning_rate", "batch_size", "max_epochs", "seed", "sigma"} <= named


def test_ids_of_the_equations_exist() -> None:
    for row in rows("Equations"):
        for identifier in re.findall(r"`([^`]+)`", row[3]):
            assert identifier in config(), identifier


def test_every_table_that_can_be_made_is_listed() -> None:
    shown = {match for row in rows("Tables") for match in re.findall(r"`([^`]+)`", row[2])}
    assert shown == {name for name in TABLES if not name.startswith("figure") and name not in ("demo", "check", "own")}


@pytest.mark.parametrize("row", rows("Tables"), ids=lambda row: row[0])
def test_overlays_of_a_table_are_those_that_it_uses(row: list[str]) -> None:
    name = row[2].strip("`")
    if "the same" in row[3] or "as table 15" in row[3]:
        assert {one.configs for one in TABLES[name].experiments} == {one.configs for one in TABLES["15"].experiments}
    else:
        said = set(re.findall(r"`configs/([\w/]+)\.json`", row[3]))
        assert said == {overlay for experiment in TABLES[name].experiments for overlay in experiment.configs}


def test_figures_use_what_they_name() -> None:
    for number in ("5", "6", "8"):
        (row,) = (row for row in rows("Figures") if row[0] == f"figure {number}")
        used = {overlay for experiment in TABLES[f"figure-{number}"].experiments for overlay in experiment.configs}
        said = set(re.findall(r"`configs/([\w/]+)\.json`", row[2]))
        assert said == used - {"experiments/no_deep_tokens", "paper_text"}


def test_nothing_is_said_of_a_paper_that_is_not_at_hand() -> None:
    for words in ("not verified", "not known to us", "as cited", "from memory", " ?"):
        assert words not in PAGE
