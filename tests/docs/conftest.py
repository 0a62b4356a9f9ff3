# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A folder as the pages suppose it: images of several kinds, and a bundle that is ready to use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_anomalyclip.bundles.shipped import copy_bundle
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.phantom_sets import prepare_demo_data
from monai_anomalyclip.networks import convert_prompts


@pytest.fixture(scope="session")
def supposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's bundle and phantoms under the names that the pages use; prompts are not tuned."""
    made = tmp_path_factory.mktemp("phantoms")
    prepare_demo_data(made, training=16, validation=16, testing=32, progress=False)
    inputs = made / "inference"
    folder = tmp_path_factory.mktemp("user")

    copy_bundle("anomalyclip_demo", folder / "anomalyclip_ready")
    prompts = folder / "anomalyclip_ready" / "models" / "model.pt"
    demo_network(deep_prompt_depth=4).save_prompts(prompts)
    convert_prompts(prompts, folder / "epoch_15.pth")  # in the authors' layout, for the demonstration's tower

    shutil.copytree(inputs / "study", folder / "head_ct")
    shutil.copytree(inputs / "study", folder / "studies")
    shutil.copytree(inputs / "frames", folder / "frames")
    shutil.copy(inputs / "clip.mp4", folder / "colonoscopy.mp4")
    (folder / "brain_mr").mkdir()
    shutil.copy(inputs / "volume.nii.gz", folder / "brain_mr")
    (folder / "chest_xray").mkdir()
    for picture in (inputs / "frames").glob("chest_xray_*.png"):
        shutil.copy(picture, folder / "chest_xray")

    lists = json.loads((made / "datalist.json").read_text())
    for section, name in (("training", "tuning"), ("validation", "validation"), ("testing", "testing")):
        for entry in lists[section]:
            image = Path(entry["image"])
            target = folder / "mine" / name / ("abnormal" if entry["image_label"] else "normal") / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(made / image, target)
            if "label" in entry:
                (folder / "mine" / name / "masks").mkdir(exist_ok=True)
                shutil.copy(made / entry["label"], folder / "mine" / name / "masks" / image.name)
    return folder


@pytest.fixture
def user_folder(supposed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder."""
    folder = tmp_path / "user"
    shutil.copytree(supposed, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MONAI_ANOMALYCLIP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return folder
