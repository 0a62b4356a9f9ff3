# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.label import AnomalyModel
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.networks import CalibratedThresholds, thresholds_path
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_predicts_what_the_bundle_predicts(model: AnomalyModel, weak_bundle: Path, picture: Path) -> None:
    network = demo_network(deep_prompt_depth=4).eval()
    network.load_prompts(weak_bundle / "models" / "model.pt")
    expected = model.inferer(read_image(picture)[None], network)
    found = model.predict(picture)
    assert found.anomaly_map.shape == (1, 40, 60)
    torch.testing.assert_close(found.anomaly_map.as_tensor(), expected["anomaly_map"][0].as_tensor())
    assert found.anomaly_score == pytest.approx(float(expected["anomaly_score"]))
    assert (found.slice_index, len(found.descriptor)) == (0, 32)
    assert found.prompts == str(prompts_digest(weak_bundle / "models" / "model.pt"))[:12] == model.prompts_digest


def test_precision_holds_in_the_thread_that_answers(model: AnomalyModel, tmp_path: Path, picture: Path) -> None:
    coarse = AnomalyModel(model.bundle, tmp_path / "coarse", "bfloat16")
    exact = model.predict(picture).anomaly_map
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(coarse.predict, picture).result().anomaly_map
    assert 0 < (found - exact).abs().mean() < 2e-3
    with pytest.raises(ValueError, match="precision='half' is not one of auto, float32"):
        AnomalyModel(model.bundle, tmp_path / "coarse", "half")


def test_volume_on_its_grid_and_its_most_suspicious_slice(model: AnomalyModel, tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 4.0, 1.0])
    volume = np.random.default_rng(0).random((30, 20, 5)).astype(np.float32)
    nib.loadsave.save(nib.nifti1.Nifti1Image(volume, affine), tmp_path / "a.nii.gz")
    found = model.predict(tmp_path / "a.nii.gz")
    assert found.anomaly_map.shape == (1, 30, 20, 5)
    np.testing.assert_allclose(found.anomaly_map.affine, affine)
    scores = model.inferer(read_image(tmp_path / "a.nii.gz")[None], model.network())["anomaly_score"][0]
    assert found.slice_index == int(scores.argmax())
    assert found.anomaly_score == pytest.approx(float(scores.max()))


def test_tuning_copies_share_the_frozen_clip(model: AnomalyModel) -> None:
    first, second = model.network(), model.network()
    assert first.clip is second.clip
    with torch.no_grad():
        first.prompts.contexts[0].add_(1)
    assert not torch.equal(first.prompts.contexts[0], second.prompts.contexts[0])


def test_saved_prompts_take_effect_and_those_before_are_kept(
    model: AnomalyModel, weak_bundle: Path, picture: Path
) -> None:
    bundled = (weak_bundle / "models" / "model.pt").read_bytes()
    before = model.predict(picture)
    # As the process of a background training does it.
    other = AnomalyModel(weak_bundle, model.folder)
    tuned = other.network()
    with torch.no_grad():
        for parameter in tuned.prompts.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    kept = other.save_prompts(tuned)
    assert kept == model.folder / "previous" / f"prompts_{before.prompts}.pt"
    assert kept.read_bytes() == bundled == (weak_bundle / "models" / "model.pt").read_bytes()

    after = model.predict(picture)
    assert after.prompts != before.prompts
    assert after.anomaly_score != before.anomaly_score
    assert model.prompts_path == model.folder / "prompts.pt"
    model.save_prompts(demo_network(deep_prompt_depth=4))
    assert {path.stem for path in kept.parent.iterdir()} == {f"prompts_{before.prompts}", f"prompts_{after.prompts}"}
    # Without them the bundle's are used again.
    (model.folder / "prompts.pt").unlink()
    assert model.predict(picture).anomaly_score == before.anomaly_score


def test_damaged_prompts_are_not_used(model: AnomalyModel, picture: Path) -> None:
    before = model.predict(picture)
    model.folder.mkdir(parents=True)
    (model.folder / "prompts.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a prompt checkpoint"):
        model.predict(picture)
    (model.folder / "prompts.pt").unlink()
    assert model.predict(picture).anomaly_score == before.anomaly_score


def test_thresholds(model: AnomalyModel) -> None:
    assert model.threshold([0.3]) == 0.3
    assert model.image_threshold() == 0.5
    with pytest.raises(FileNotFoundError, match="calibrate"):
        model.threshold("calibrated")
    network = model.network()
    model.save_prompts(network)
    digest = prompts_digest(model.prompts_path)
    CalibratedThresholds(0.4, 0.7, "best_f1", 9, digest).save(thresholds_path(model.prompts_path))
    assert model.threshold("calibrated") == 0.4
    assert model.image_threshold() == 0.7
    CalibratedThresholds(0.4, 1.0, "best_f1", 9, digest).save(thresholds_path(model.prompts_path))
    assert model.image_threshold() == 0.99  # uncertainty is not defined at the ends
    CalibratedThresholds(0.4, 0.7, "best_f1", 9, "0" * 64).save(thresholds_path(model.prompts_path))
    assert model.image_threshold() == 0.5  # of other prompts


def test_bundle_and_prompts_must_be_there(weak_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no bundle"):
        AnomalyModel(tmp_path, tmp_path / "model")
    shutil.copytree(weak_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "models" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match="There are no prompts at"):
        AnomalyModel(tmp_path / "bundle", tmp_path / "model")


def test_bundle_settings_hold(weak_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(weak_bundle, bundle)
    config = bundle / "configs" / "inference.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "sigma": 2.5, "slice_axis": 1}))
    model = AnomalyModel(bundle, tmp_path / "model")
    inferer = model.inferer
    assert (inferer.sigma, inferer.slice_axis, inferer.progress) == (2.5, 1, False)
    assert model.default_threshold == content["displayable_configs"]["threshold"] == 0.3
    content["displayable_configs"]["threshold"] = "calibrated"
    config.write_text(json.dumps(content))
    model = AnomalyModel(bundle, tmp_path / "model")
    assert model.default_threshold == "calibrated"
    # What clients send unasked has an answer, also before anything is calibrated.
    assert model.threshold("calibrated") == model.threshold(["calibrated"]) == 0.5
    with pytest.raises(ValueError, match="'otsu'"):
        model.threshold("otsu")


def test_bundle_in_a_folder_with_an_odd_name(weak_bundle: Path, tmp_path: Path, picture: Path) -> None:
    shutil.copytree(weak_bundle, tmp_path / "a#b $c@d %e")
    assert AnomalyModel(tmp_path / "a#b $c@d %e", tmp_path / "model").predict(picture).prompts


def test_network_that_was_moved_to_predict_can_be_tuned(model: AnomalyModel, picture: Path) -> None:
    """Weights that move in inference mode stay inference tensors; another type stands in for another device."""
    target: list[Any] = []
    move = model._network.to
    model._network.to = lambda device: move(target[0])  # type: ignore[method-assign,assignment]
    with contextlib.suppress(RuntimeError):  # the image itself stays float32
        target.append(torch.float64)
        model.predict(picture)
    target[0] = torch.float32
    assert model.predict(picture).prompts
    network = model.network()
    assert not any(value.is_inference() for value in (*network.parameters(), *network.buffers()))
    network.encode_prompts().sum().backward()
    assert network.prompts.contexts[0].grad is not None
