# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_anomalyclip.label.app_folder import bundle_of, write_label_app

BUNDLE = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"


def test_bundle_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no bundle at"):
        write_label_app(tmp_path / "app", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("monai_anomalyclip.label.app_folder.os.rename", fail)
    with pytest.raises(OSError, match="no space"):
        write_label_app(tmp_path / "app", BUNDLE)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="label-app"):
        bundle_of(tmp_path)
    for content in ("{", "[]", json.dumps({"bundel": "x"})):
        (tmp_path / "label_app.json").write_text(content)
        with pytest.raises(ValueError, match="make the app again"):
            bundle_of(tmp_path)
