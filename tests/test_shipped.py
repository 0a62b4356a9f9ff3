# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from monai_anomalyclip import shipped
from monai_anomalyclip.shipped import copy_bundle, shipped_folder

REPOSITORY = Path(__file__).parents[1]


def test_folder_here_then_of_the_package_then_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_folder("configs") == REPOSITORY / "configs"
    package = tmp_path / "site" / "monai_anomalyclip"
    (package / "configs").mkdir(parents=True)
    (package.parent / "configs").mkdir()
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    assert shipped_folder("configs") == package / "configs"
    (tmp_path / "configs").mkdir()
    assert shipped_folder("configs") == Path("configs")
    with pytest.raises(FileNotFoundError, match="There is no folder 'bundles/absent'"):
        shipped_folder("bundles/absent")


def test_copy_holds_what_was_shipped_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "configs/train.json",
        "docs/README.md",
        "models/README.md",
        "models/model.pt",
        "runs/x",
        "data/y",
        "LICENSE",
    ):
        path = tmp_path / "bundles" / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    copy_bundle("mine", tmp_path / "copy")
    copied = {
        path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()
    }
    assert copied == {"configs/train.json", "docs/README.md", "models/README.md", "LICENSE"}
