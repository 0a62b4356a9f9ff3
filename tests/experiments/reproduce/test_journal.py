# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from monai_anomalyclip.experiments.reproduce.journal import RunFolder


def test_tuning_is_finished_with_its_last_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run").of_seed(111)
    settings = {"epochs": 3}
    assert not folder.is_tuned(settings)
    folder.begin_tuning(settings)
    assert not folder.is_tuned(settings)
    folder.prompts.parent.mkdir()
    folder.prompts.touch()
    assert folder.is_tuned(settings)
    assert folder.path == tmp_path / "run" / "seed-111"


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin_tuning({"epochs": 3, "images": 8})
    with pytest.raises(ValueError, match=r"other settings \(epochs\): remove that folder"):
        folder.is_tuned({"epochs": 5, "images": 8})


def test_result_holds_for_its_settings(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.result("visa", {"images": 2}) is None
    folder.write_result("visa", {"images": 2}, {"image_auroc": 0.25, "pixel_auroc": math.nan})
    read = folder.result("visa", {"images": 2})
    assert read is not None
    assert read["image_auroc"] == 0.25
    assert math.isnan(read["pixel_auroc"])
    assert folder.result("visa", {"images": 3}) is None
    content = json.loads((tmp_path / "visa" / "result.json").read_text(), parse_constant=pytest.fail)
    assert content["metrics"] == {"image_auroc": 0.25, "pixel_auroc": None}


def test_digest_is_of_contents_and_order(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file, text in zip(files, ("one", "two"), strict=True):
        file.write_text(text)
    expected = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in (b"one", b"two"))).hexdigest()
    assert RunFolder.digest(files) == expected
    assert RunFolder.digest(files[::-1]) != expected
