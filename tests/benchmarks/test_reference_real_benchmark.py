# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from monai_anomalyclip.data import load_frame
from monai_anomalyclip.reference import NormalReference, timm_encoder

Script = Callable[[str], ModuleType]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """14 normal pictures, 5 with a white square, and masks; weights of a small encoder."""
    generator = np.random.default_rng(0)
    for kind in ("normal", "abnormal", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(19):
        coarse = generator.integers(90, 130, (5, 6, 3), dtype=np.uint8)
        picture = np.array(Image.fromarray(coarse).resize((48, 40), Image.Resampling.BILINEAR))
        if number >= 14:
            mask = np.zeros((40, 48), np.uint8)
            mask[8:30, 10:34] = 255
            picture[mask > 0] = generator.integers(0, 256, (int((mask > 0).sum()), 3))
            Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
        Image.fromarray(picture).save(tmp_path / ("abnormal" if number >= 14 else "normal") / f"{number:02d}.png")
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "w.pth")
    return tmp_path


def options(folder: Path) -> list[str]:
    named = ["--normal", folder / "normal", "--abnormal", folder / "abnormal", "--masks", folder / "masks"]
    return [*map(str, named), "--encoder", "timm:resnet10t", "--weights", str(folder / "w.pth")]


def test_a_small_run(script: Script, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("reference_real")
    target = tmp_path / "table.json"
    assert module.main([*options(folders), "--k", "4,9", "--draws", "2", "--json", str(target)]) == 0
    record: dict[str, Any] = json.loads(target.read_text())
    assert record["images"] == {"normal": 14, "abnormal": 5}
    assert set(record["image_auroc"]) == set(record["image_auroc_raw"]) == {"4", "9"}
    for figures in record["image_auroc"].values():
        assert 0.8 <= figures["min"] <= figures["mean"] <= figures["max"] <= 1
    assert set(record["false_positive_rate"]["4"]) == {"0.2"}
    assert set(record["false_positive_rate"]["9"]) == {"0.1", "0.2"}
    assert record["pixel_auroc"]["9"]["mean"] > 0.6
    assert set(record["trivial_cues"]) == {"mean_gray", "size"}
    printed = capsys.readouterr().out
    assert "| image AUROC |" in printed
    assert "Trivial cues: mean gray" in printed


def test_figures_are_those_of_the_reference(script: Script, folders: Path) -> None:
    """The benchmark's short cut, distances once for all draws, against the class that people use."""
    module = script("reference_real")
    parsed = module.parse_arguments([*options(folders), "--k", "5", "--draws", "1", "--seed", "3"])
    record = module.run(parsed)
    paths = sorted((folders / "normal").glob("*.png"))
    (draw,) = module.draw_normals(14, 5, 1, 3)
    encoder = timm_encoder("resnet10t", folders / "w.pth")
    reference = NormalReference.build([load_frame(paths[index]) for index in draw.normals], encoder=encoder)
    tests = [path for index, path in enumerate(paths) if index not in draw.normals]
    tests += sorted((folders / "abnormal").glob("*.png"))
    found = [reference.score(load_frame(path)) for path in tests]
    labels = [0] * 9 + [1] * 5
    assert record["image_auroc"]["5"]["mean"] == pytest.approx(roc_auc_score(labels, [one.score for one in found]))
    flagged = [one.calibration.flags(one.score, 0.2) for one in found]
    assert record["false_positive_rate"]["5"]["0.2"]["mean"] == pytest.approx(np.mean(flagged[:9]))
    assert record["sensitivity"]["5"]["0.2"]["mean"] == pytest.approx(np.mean(flagged[9:]))


def test_trivial_cues_find_what_gives_a_set_away(script: Script) -> None:
    module = script("reference_real")
    picture = torch.zeros(1, 1)
    normal = [module.Picture(picture, picture, gray, 100) for gray in (0.1, 0.2, 0.3)]
    abnormal = [module.Picture(picture, picture, gray, 100) for gray in (0.05, 0.02)]
    assert module.trivial_cues(normal, abnormal) == {"mean_gray": 1.0, "size": 0.5}


def test_too_few_images(script: Script, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("reference_real")
    assert module.main([*options(folders), "--k", "14"]) == 1
    assert "14 normal images are too few for references of 14" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        module.main(["--normal", str(folders / "absent"), "--abnormal", str(folders / "abnormal")])
