# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
from pathlib import Path

import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.bundle_folders import NAMES
from monai_anomalyclip.label.app_folder import bundle_of

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


BUNDLE = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"


def test_folder_has_what_monai_label_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = tmp_path / "new" / "app"
    assert main(["label-app", str(app), "--bundle", str(BUNDLE)]) == 0
    shown = capsys.readouterr().out
    assert f"--host 127.0.0.1 --app {app} --studies STUDIES" in shown
    assert RESEARCH_USE_ONLY in shown
    assert sorted(path.name for path in app.iterdir()) == ["README.md", "label_app.json", "main.py"]
    assert [path.name for path in app.parent.iterdir()] == ["app"]
    assert bundle_of(app) == BUNDLE
    assert RESEARCH_USE_ONLY in (app / "README.md").read_text()
    # MONAI Label takes the first class of main.py's namespace that derives from its MONAILabelApp.
    imported = [node for node in ast.parse((app / "main.py").read_text()).body if isinstance(node, ast.ImportFrom)]
    assert [(node.module, node.names[0].name) for node in imported] == [
        ("monai_anomalyclip.label.app", "AnomalyLabelApp")
    ]


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "app").mkdir()
    assert main(["label-app", str(tmp_path / "app"), "--bundle", str(BUNDLE)]) == 1
    assert "exists: give the name of a new folder" in capsys.readouterr().err
    assert list((tmp_path / "app").iterdir()) == []


def test_default_bundle_is_the_one_of_real_work(tmp_path: Path) -> None:
    assert main(["label-app", str(tmp_path / "app")]) == 0
    assert bundle_of(tmp_path / "app").name == "anomalyclip"


def test_bundle_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label-app", str(tmp_path / "app"), "--bundle", str(tmp_path)]) == 1
    assert "There is no bundle at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
