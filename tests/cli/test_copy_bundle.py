# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.copy_bundle import NAMES

BUNDLES = Path(__file__).parents[2] / "bundles"


def test_names_are_the_bundles() -> None:
    assert set(NAMES) == {path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json")}


@pytest.mark.parametrize("name", NAMES)
def test_copy(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "mine"
    assert main(["copy-bundle", name, str(folder)]) == 0
    shown = capsys.readouterr().out
    assert f"--bundle_root {folder}" in shown
    assert ("reference of normal images" in shown) is (name == "own_normals")
    for path in (BUNDLES / name / "configs").iterdir():
        assert (folder / "configs" / path.name).read_bytes() == path.read_bytes()
    assert not list((folder / "models").glob("*.pt"))
    assert main(["copy-bundle", name, str(folder)]) == 1
    assert "exists: name a folder that does not" in capsys.readouterr().err
