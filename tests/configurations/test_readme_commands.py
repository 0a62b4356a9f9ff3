# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every command of the README and of the bundles' documentation, as printed, in a folder like a fresh clone."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tools.run_readme import commands

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

DOCUMENTS = ["README.md", "docs/studies.md", "bundles/anomalyclip_demo/docs/README.md"]


COMMANDS = list(dict.fromkeys(line for document in DOCUMENTS for line in commands(document)))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_as_printed(command: str, tuned: Path, run: Run) -> None:
    run(command)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10
    assert any("torchrun" in command for command in COMMANDS)


def test_verify_metadata_can_fail(run: Run, workspace: Path) -> None:
    metadata = json.loads((workspace / "bundles/anomalyclip_demo/configs/metadata.json").read_text())
    del metadata["network_data_format"]["outputs"]
    (workspace / "broken.json").write_text(json.dumps(metadata))
    schema = "tests/fixtures/bundle_metadata_schema.json"
    failed = run(f"python -m monai.bundle verify_metadata --meta_file broken.json --filepath {schema}", check=False)
    assert failed.returncode != 0


def test_monai_bundle_load(tuned: Path) -> None:
    from monai.bundle import load

    with contextlib.redirect_stdout(io.StringIO()):
        network = load("anomalyclip_demo", bundle_dir=str(tuned.parent))
    reference = network.encode_prompts()
    network.load_prompts(tuned / "models" / "model.pt")
    np.testing.assert_array_equal(network.encode_prompts().detach(), reference.detach())
