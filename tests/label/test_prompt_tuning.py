# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""One tuning by two roads: our app's, and the bundle's configuration as MONAI Label's own app runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_anomalyclip.data import feature_cache
from monai_anomalyclip.demo.studies import demo_seeds, demo_volume
from monai_anomalyclip.demo.volumes import write_nifti
from monai_anomalyclip.label import AnomalyModel, tune_prompts

Pairs = list[dict[str, Path]]
LESION = list(islice(demo_seeds("brain_mr"), 3))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Two volumes with a lesion, a normal one, and one with a lesion that is held out."""
    folder = tmp_path_factory.mktemp("pairs")
    volumes = [demo_volume("brain_mr", seed) for seed in LESION]
    volumes.insert(2, demo_volume("brain_mr", 7, anomalous=False))
    return [
        {
            "image": write_nifti(folder / f"{number}.nii.gz", phantom.image, phantom.affine),
            "label": write_nifti(folder / f"{number}_l.nii.gz", phantom.mask.astype(np.uint8), phantom.affine),
        }
        for number, phantom in enumerate(volumes)
    ]


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def inside_and_outside(model: AnomalyModel, pair: dict[str, Path], seed: int) -> tuple[float, float]:
    """Means of the map inside and outside the lesion."""
    lesion = np.asarray(demo_volume("brain_mr", seed).mask)
    values = np.asarray(model.predict(pair["image"]).anomaly_map)[0]
    return float(values[lesion].mean()), float(values[~lesion].mean())


def as_the_stock_app_does(bundle: Path, data: Sequence[dict[str, Path]], **settings: Any) -> None:
    """What MONAI Label 0.8.5's BundleTrainTask changes in the configuration; the prompts land in the bundle."""
    config = json.loads((bundle / "configs" / "train.json").read_text())
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(bundle / "models" / "model.pt"),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    overrides = {
        "bundle_root": str(bundle),
        "train#trainer#max_epochs": settings.pop("max_epochs"),
        "train#dataset#data": [{key: str(path) for key, path in pair.items()} for pair in data],
        "validate#dataset#data": [],
        "device": "cpu",
        "train#handlers": [loader, *config["train"]["handlers"]],
        **settings,
    }
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"), workflow_type="train", logging_file=False, **overrides
    )
    workflow.initialize()
    workflow.run()


@pytest.mark.parametrize("road", ["our app", "stock app"])
def test_one_labelled_volume_makes_its_lesion_stand_out(
    model: AnomalyModel, pairs: Pairs, tmp_path: Path, road: str
) -> None:
    """15 epochs. With the Dice of normal slices the same tuning ends lower, by either road."""
    before, _ = inside_and_outside(model, pairs[0], LESION[0])
    after = {}
    for name, settings in (("as configured", {}), ("dice of normal slices", {"dice_on_normal_images": True})):
        if road == "our app":
            network, _ = tune_prompts(model, pairs[:1], max_epochs=15, **settings)
            tuned = AnomalyModel(model.bundle, tmp_path / name)
            tuned.save_prompts(network)
        else:
            bundle = tmp_path / name / model.bundle.name
            shutil.copytree(model.bundle, bundle)
            as_the_stock_app_does(bundle, pairs[:1], max_epochs=15, **settings)
            tuned = AnomalyModel(bundle, tmp_path / name / "app")
        after[name] = inside_and_outside(tuned, pairs[0], LESION[0])
    inside, outside = after["as configured"]
    assert inside > before + 0.05
    assert inside > after["dice of normal slices"][0]
    assert outside < 0.05


def test_both_roads_end_in_the_same_prompts(model: AnomalyModel, pairs: Pairs, tmp_path: Path) -> None:
    bundle = tmp_path / model.bundle.name
    shutil.copytree(model.bundle, bundle)
    as_the_stock_app_does(bundle, pairs[:3], max_epochs=2)
    network, _ = tune_prompts(model, pairs[:3], max_epochs=2)
    stock = torch.load(bundle / "models" / "model.pt", weights_only=True)
    mine = network.state_dict()
    assert stock.keys() == mine.keys()
    assert all(torch.equal(stock[key], mine[key]) for key in stock)


def test_tuning_encodes_in_the_precision_of_the_app(
    model: AnomalyModel, pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    plain = feature_cache.autocast
    monkeypatch.setattr(feature_cache, "autocast", lambda name, device: asked.append(name) or plain(name, device))
    coarse = AnomalyModel(model.bundle, tmp_path / "coarse", "bfloat16")
    reports = [tune_prompts(one, pairs[:1], max_epochs=1)[1] for one in (model, coarse)]
    assert set(asked) == {"float32", "bfloat16"}
    assert reports[0].loss_before != reports[1].loss_before
    assert reports[0].loss_before == pytest.approx(reports[1].loss_before, rel=2e-2)


@pytest.mark.parametrize("epochs", [5, 20])
def test_held_out_lesion_stands_out_afterwards(model: AnomalyModel, pairs: Pairs, epochs: int) -> None:
    """Also after many epochs."""

    def contrast() -> float:
        inside, outside = inside_and_outside(model, pairs[3], LESION[2])
        return inside - outside

    before = contrast()
    clip = {key: value.clone() for key, value in model.network().clip.state_dict().items()}
    network, report = tune_prompts(model, pairs[:3], max_epochs=epochs)
    assert report.improved
    assert report.loss_after < report.loss_before
    assert (report.images, report.normal_images, report.unreadable) == (3, 1, 0)
    masks = [np.asarray(demo_volume("brain_mr", seed).mask) for seed in LESION[:2]]
    assert report.anomalous_slices == sum(int(mask.any(axis=(0, 1)).sum()) for mask in masks)
    assert report.slices > 2 * report.anomalous_slices  # as many normal ones, and the normal study
    assert all(torch.equal(value, clip[key]) for key, value in network.clip.state_dict().items())
    model.save_prompts(network)
    assert before < 0.05
    assert contrast() > 0.25
    json.dumps(report.to_dict())


def test_same_seed_same_prompts(model: AnomalyModel, pairs: Pairs) -> None:
    first, same, other = (
        state(tune_prompts(model, pairs[:1], max_epochs=1, batch_size=3, seed=seed)[0]) for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_prompts_stay_when_the_loss_does_not_fall(model: AnomalyModel, pairs: Pairs) -> None:
    before = state(model.network())
    network, report = tune_prompts(model, pairs[:1], max_epochs=1, learning_rate=1e6)
    assert not report.improved
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_normal_studies_alone_are_no_error(model: AnomalyModel, pairs: Pairs) -> None:
    _, report = tune_prompts(model, pairs[2:3], max_epochs=2)
    assert report.anomalous_slices == 0
    assert np.isfinite(report.loss_after)


@pytest.mark.parametrize("argument", ["max_epochs", "learning_rate", "batch_size"])
def test_arguments_must_be_positive(model: AnomalyModel, pairs: Pairs, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be positive, got 0"):
        tune_prompts(model, pairs[:1], **{argument: 0})


def test_what_cannot_be_read_is_left_out(
    model: AnomalyModel, pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "b_label.nii.gz").write_bytes(b"nothing")
    bad = {"image": pairs[0]["image"], "label": tmp_path / "b_label.nii.gz"}
    _, report = tune_prompts(model, [bad, pairs[0]], max_epochs=1)
    assert (report.images, report.unreadable) == (1, 1)
    assert "A labelled image is left out: Cannot read the label 'b_label.nii.gz'" in caplog.text
    with pytest.raises(ValueError, match=r"no final label to tune the prompts on \(1 cannot be read\)"):
        tune_prompts(model, [bad])


def test_tuning_on_a_gpu_between_predictions(model: AnomalyModel, pairs: Pairs, accelerator: str) -> None:
    model.predict(pairs[3]["image"], device=accelerator)
    assert tune_prompts(model, pairs[:3], device=accelerator, max_epochs=2)[1].improved
    assert model.predict(pairs[3]["image"], device=accelerator).prompts
