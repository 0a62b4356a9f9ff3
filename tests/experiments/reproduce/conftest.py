# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A thin CLIP with as many blocks as the paper's, data sets of a few tiny pictures, and the runs made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.experiments.baselines import PlainCLIP
from monai_anomalyclip.experiments.reproduce.workflows import BundleRuns

REPOSITORY = Path(__file__).parents[3]
SIDE = 42

THIN = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": SIDE, "layers": 24, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 12},
    "quick_gelu": True,
}


@pytest.fixture(scope="session")
def thin_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the thin CLIP: random, but the same in all tests."""
    weights = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.manual_seed(2)
    with pytest.warns(UserWarning, match="random weights"):
        network = PlainCLIP(THIN, None, image_size=SIDE)
    torch.save(network.clip.state_dict(), weights)
    return weights


@pytest.fixture(scope="session")
def thin(thin_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An overlay that puts the thin CLIP into the bundle ``anomalyclip``, without tables and pictures."""
    file = tmp_path_factory.mktemp("overlay") / "thin.json"
    backbone = {"model_name": THIN, "pretrained": str(thin_weights), "image_size": SIDE}
    settings = {"backbone": backbone, "device": "cpu", "sigma": 1.0, "validate#handlers": []}
    file.write_text(json.dumps(settings))
    return file


def draw(path: Path, seed: int, *, lesion: bool = False, mask: bool = False) -> None:
    """A noisy picture, with a bright square if it has a lesion; or the square's mask."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((SIDE, SIDE), np.uint8) if mask else rng.integers(0, 120, (SIDE, SIDE), dtype=np.uint8)
    if lesion or mask:
        top, left = rng.integers(0, SIDE - 14, 2)
        pixels[top : top + 14, left : left + 14] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec AD and CVC-ClinicDB as they are unpacked, HeadCT as a datalist, and nothing else."""
    root = tmp_path_factory.mktemp("data")
    for product in ("bottle", "cable"):
        for number in range(3):
            draw(root / f"mvtec_anomaly_detection/{product}/test/good/{number:03}.png", number)
            for folder, ending, is_mask in (("test", "", False), ("ground_truth", "_mask", True)):
                file = root / f"mvtec_anomaly_detection/{product}/{folder}/broken/{number:03}{ending}.png"
                draw(file, 100 + number, lesion=True, mask=is_mask)
    for number in range(4):
        draw(root / f"CVC-ClinicDB/Original/{number}.png", 200 + number, lesion=True)
        draw(root / f"CVC-ClinicDB/Ground Truth/{number}.png", 200 + number, mask=True)
    entries = []
    for number in range(6):
        draw(root / f"ct/{number}.png", 300 + number, lesion=bool(number % 2))
        entries.append({"image": f"ct/{number}.png", "image_label": number % 2, "class": "brain"})
    (root / "headct.json").write_text(json.dumps({"testing": entries}))
    return root


@pytest.fixture
def runs(thin: Path, tmp_path: Path) -> Callable[..., BundleRuns]:
    """``runs(configs=...)``: the bundle ``anomalyclip`` on the thin CLIP."""

    def make(**settings: Any) -> BundleRuns:
        given = {"bundle": REPOSITORY / "bundles" / "anomalyclip", "configs": REPOSITORY / "configs", **settings}
        return BundleRuns(cache_dir=tmp_path / "features", further=(thin,), **given)

    return make
