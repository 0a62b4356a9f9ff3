# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.cli import datalist, main
from monai_anomalyclip.data.datasets import SPLITS, data_sets


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(root / name)
    return root


def test_names_are_those_of_the_registry() -> None:
    assert sorted(datalist.NAMES) == sorted(data_sets())


def test_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "images", "good/a.png", "bad/b.png", "bad/c.png")
    target = root / "datalist.json"
    assert main(["datalist", "folder", str(root), "-o", str(target)]) == 0
    entries = json.loads(target.read_text())["testing"]
    assert sorted((entry["image"], entry["image_label"]) for entry in entries) == [
        ("bad/b.png", 1), ("bad/c.png", 1), ("good/a.png", 0),
    ]  # fmt: skip
    assert "testing: 1 normal and 2 anomalous images" in capsys.readouterr().out


@pytest.mark.parametrize("split", SPLITS[:3])
def test_split(split: str, tmp_path: Path) -> None:
    root = make(tmp_path / "images", "good/a.png", "bad/b.png")
    assert main(["datalist", "folder", str(root), "-o", str(root / "d.json"), "--split", split]) == 0
    content = json.loads((root / "d.json").read_text())
    assert [section for section in SPLITS if content.get(section)] == [split]


def test_existing_list_is_kept_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "images", "good/a.png", "bad/b.png")
    (root / "d.json").write_text("precious")
    command = ["datalist", "folder", str(root), "-o", str(root / "d.json")]
    assert main(command) == 1
    assert "exist" in capsys.readouterr().err
    assert (root / "d.json").read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0
    assert json.loads((root / "d.json").read_text())


def test_wrong_layout_and_missing_folder_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "good/a.png")
    for root in (tmp_path, tmp_path / "absent"):
        assert main(["datalist", "mvtec", str(root), "-o", str(tmp_path / "d.json")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert "Traceback" not in error
    assert not (tmp_path / "d.json").exists()


def test_unknown_data_sets_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["datalist", "imagenet", str(tmp_path), "-o", str(tmp_path / "d.json")])
    assert left.value.code == 2
    assert "imagenet" in capsys.readouterr().err
