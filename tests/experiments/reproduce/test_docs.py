# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The commands and the Python of docs/experiments.md: that they are understood, and that their files exist."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from monai_anomalyclip.data.datasets import data_sets
from monai_anomalyclip.experiments.reproduce import command as reproduce
from monai_anomalyclip.experiments.reproduce import reproduce_table

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "experiments.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line]


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("monai-anomalyclip")])
def test_command_is_understood(command: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    reproduce.add_command(parser.add_subparsers(required=True))
    parsed = parser.parse_args(shlex.split(command))
    assert parsed.list or parsed.output


@pytest.mark.parametrize("command", [line for line in COMMANDS if "monai.bundle" in line])
def test_files_of_the_bundle_command_exist(command: str) -> None:
    words = shlex.split(command)
    for file in ast.literal_eval(words[words.index("--config_file") + 1]):
        assert (REPOSITORY / file).is_file()


def test_every_command_is_one_of_these() -> None:
    assert len(COMMANDS) == 5
    assert all(line.startswith("monai-anomalyclip reproduce") or " monai.bundle run " in line for line in COMMANDS)


def test_further_configuration_is_an_overlay() -> None:
    (block,) = blocks("json")
    assert list(json.loads(block)) == ["backbone#pretrained"]


def test_python_calls_what_exists() -> None:
    (block,) = blocks("python")
    assert "from monai_anomalyclip.experiments.reproduce.reproduce_table import reproduce_table" in block
    compile(block, "docs/experiments.md", "exec")
    assert callable(reproduce_table.reproduce_table)


def test_names_of_data_sets_and_prompts_are_known() -> None:
    assert set(re.findall(r"`prompts/([\w-]+)\.pth`", PAGE)) <= set(data_sets())
