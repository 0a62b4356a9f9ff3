# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every command of the documentation of methods and experiments, as printed, in a folder like a fresh clone."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = ["docs/baselines.md", "docs/experiments.md"]
COMMANDS = [
    line
    for document in DOCUMENTS
    for block in re.findall(r"^```bash\n(.*?)^```", (REPOSITORY / document).read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_as_printed(command: str, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    run(command)


def test_methods_are_all_run() -> None:
    methods = {path.stem for path in (REPOSITORY / "configs" / "methods").glob("*.json")}
    assert {name for name in methods if any(f"methods/{name}.json" in command for command in COMMANDS)} == methods
