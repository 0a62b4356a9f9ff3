# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.demo.studies import demo_seeds, demo_volume
from monai_anomalyclip.demo.volumes import write_nifti
from monai_anomalyclip.label import AnomalyModel, LabelledSlices, encode_labelled, tune_prompts
from monai_anomalyclip.label.prompt_tuning import _loss_of
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.transforms import CLIPMaskPreprocess, CLIPPreprocess


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Path]]:
    """Two volumes with a lesion, a normal one, and one with a lesion that is held out."""
    folder = tmp_path_factory.mktemp("pairs")
    seeds = list(islice(demo_seeds("brain_mr"), 3))
    volumes = [demo_volume("brain_mr", seed) for seed in seeds]
    volumes.insert(2, demo_volume("brain_mr", 7, anomalous=False))
    return [
        {
            "image": write_nifti(folder / f"{number}.nii.gz", phantom.image, phantom.affine),
            "label": write_nifti(folder / f"{number}_l.nii.gz", phantom.mask.astype(np.uint8), phantom.affine),
        }
        for number, phantom in enumerate(volumes)
    ]


@pytest.fixture
def data(model: AnomalyModel, pairs: list[dict[str, Path]]) -> LabelledSlices:
    return encode_labelled(pairs[:3], model.network(), model.inferer)


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.mark.parametrize("epochs", [5, 20])
def test_held_out_lesion_stands_out_afterwards(
    model: AnomalyModel, data: LabelledSlices, pairs: list[dict[str, Path]], epochs: int
) -> None:
    """Also after many epochs: the Dice term of normal slices, which makes every map zero, is not minimised."""
    lesion = np.asarray(demo_volume("brain_mr", list(islice(demo_seeds("brain_mr"), 3))[2]).mask)

    def contrast() -> float:
        values = np.asarray(model.predict(pairs[3]["image"]).anomaly_map)[0]
        return float(values[lesion].mean() - values[~lesion].mean())

    before = contrast()
    network = model.network()
    clip = {key: value.clone() for key, value in network.clip.state_dict().items()}
    report = tune_prompts(network, data, max_epochs=epochs)
    assert report.improved
    assert report.loss_after < report.loss_before
    assert (report.images, report.normal_images) == (3, 1)
    assert (report.slices, report.anomalous_slices) == (len(data.image_label), int(data.image_label.sum()))
    assert all(torch.equal(value, clip[key]) for key, value in network.clip.state_dict().items())
    model.save_prompts(network)
    assert before < 0.05
    assert contrast() > 0.25
    json.dumps(report.to_dict())


def test_same_seed_same_prompts(model: AnomalyModel, data: LabelledSlices) -> None:
    networks = [model.network() for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        tune_prompts(network, data, max_epochs=1, seed=seed)
    first, same, other = (state(network.prompts) for network in networks)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_prompts_stay_when_the_loss_does_not_fall(model: AnomalyModel, data: LabelledSlices) -> None:
    network = model.network()
    before = state(network.prompts)
    report = tune_prompts(network, data, max_epochs=1, learning_rate=1e6)
    assert not report.improved
    assert all(torch.equal(value, before[key]) for key, value in network.prompts.state_dict().items())


def test_normal_studies_alone_are_no_error(model: AnomalyModel, pairs: list[dict[str, Path]]) -> None:
    network = model.network()
    report = tune_prompts(network, encode_labelled(pairs[2:3], network, model.inferer), max_epochs=2)
    assert report.anomalous_slices == 0
    assert np.isfinite(report.loss_after)


@pytest.mark.parametrize("argument", ["max_epochs", "learning_rate", "batch_size"])
def test_arguments_must_be_positive(model: AnomalyModel, data: LabelledSlices, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be positive, got 0"):
        tune_prompts(model.network(), data, **{argument: 0})


def test_features_wait_on_the_cpu_and_batches_go_to_the_network(data: LabelledSlices) -> None:
    """PyTorch's device without memory stands in for a GPU, and plain zeros for what the network makes there."""

    def zeros(features: dict[str, torch.Tensor], output: str) -> dict[str, Any]:
        assert {value.device.type for value in features.values()} == {"meta"}
        count = len(features["global_features"])
        maps = torch.zeros(count, 2, 8, 8, device="meta")
        return {"image_logits": torch.zeros(count, 2, device="meta"), "patch_logits": [maps]}

    network: Any = zeros
    network.clip = SimpleNamespace(logit_scale=torch.zeros((), device="meta"))
    assert _loss_of(network, data, GlocalLoss(), torch.arange(2)).device.type == "meta"
    assert {value.device.type for value in (data.global_features, data.patch_features, data.label)} == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tuning_on_a_gpu_between_predictions(model: AnomalyModel, pairs: list[dict[str, Path]]) -> None:
    model.predict(pairs[3]["image"], device="cuda")
    network = model.network("cuda")
    data = encode_labelled(pairs[:3], network, model.inferer)
    assert {value.device.type for value in (data.global_features, data.patch_features, data.label)} == {"cpu"}
    assert tune_prompts(network, data, max_epochs=2).improved
    assert model.predict(pairs[3]["image"], device="cuda").prompts


AFFINE = np.diag([-1.0, -1.0, 4.0, 1.0])


def volume(folder: Path, name: str, marked: list[int], slices: int = 10) -> dict[str, Path]:
    values = np.random.default_rng(len(marked)).random((20, 24, slices)).astype(np.float32)
    mask = np.zeros(values.shape, dtype=np.uint8)
    for index in marked:
        mask[3 : 8 + index, 5:20, index] = 1
    for key, array in (("image", values), ("label", mask)):
        nib.loadsave.save(nib.nifti1.Nifti1Image(array, AFFINE), folder / f"{name}_{key}.nii.gz")
    return {key: folder / f"{name}_{key}.nii.gz" for key in ("image", "label")}


def test_slices_features_and_masks(model: AnomalyModel, tmp_path: Path) -> None:
    pair = volume(tmp_path, "a", [2, 3, 7])
    network = model.network()
    data = encode_labelled([pair], network, model.inferer)
    assert (data.images, data.normal_images, data.unreadable) == (1, 0, 0)
    # Three anomalous slices, three normal ones, in the order of the volume.
    assert data.image_label.tolist() == [0, 1, 1, 0, 1, 0]
    mask = np.asarray(nib.loadsave.load(pair["label"]).dataobj)
    image = np.asarray(read_image(pair["image"]))[0]
    # Rows run along Y and columns along X of this volume.
    expected = CLIPMaskPreprocess(112)(mask[:, :, 2].T)
    torch.testing.assert_close(data.label[1], torch.as_tensor(expected))
    prepared = CLIPPreprocess(112)(np.repeat(image[None, :, :, 2].transpose(0, 2, 1), 3, axis=0))
    with torch.no_grad():
        features, patches = network.encode_image(torch.as_tensor(prepared)[None])
    torch.testing.assert_close(data.global_features[1], features[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(data.patch_features[1, 0], patches[0][0], atol=1e-4, rtol=1e-3)


def test_number_of_slices_is_bounded(model: AnomalyModel, tmp_path: Path) -> None:
    many = volume(tmp_path, "many", list(range(8)), slices=20)
    normal = volume(tmp_path, "normal", [], slices=20)
    data = encode_labelled([many, normal], model.network(), model.inferer, max_slices=4)
    assert data.image_label.tolist().count(1) == 4
    assert len(data.image_label) == 4 + 4 + 4
    assert (data.images, data.normal_images) == (2, 1)


def test_pictures(model: AnomalyModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[10:30, 5:15] = 255
    Image.fromarray(mask).save(tmp_path / "a_label.png")
    pairs = [{"image": tmp_path / "a.png", "label": tmp_path / "a_label.png"}]
    data = encode_labelled(pairs, model.network(), model.inferer)
    torch.testing.assert_close(data.label[0], torch.as_tensor(CLIPMaskPreprocess(112)(mask)))


def test_what_cannot_be_read_is_left_out(model: AnomalyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = volume(tmp_path, "a", [1]), volume(tmp_path, "b", [1])
    bad["label"].write_bytes(b"nothing")
    data = encode_labelled([bad, good], model.network(), model.inferer)
    assert (data.images, data.unreadable) == (1, 1)
    assert "A labelled image is left out: Cannot read the label 'b_label.nii.gz'" in caplog.text
    with pytest.raises(ValueError, match=r"no final label to tune the prompts on \(1 cannot be read\)"):
        encode_labelled([bad], model.network(), model.inferer)


def test_tiny_mark_that_vanishes_at_the_networks_size_is_still_an_anomaly(model: AnomalyModel, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1024, 1024), dtype=np.uint8)).save(tmp_path / "a.png")
    mask = np.zeros((1024, 1024), dtype=np.uint8)
    mask[501:503, 501:503] = 255
    Image.fromarray(mask).save(tmp_path / "a_label.png")
    network = model.network()
    data = encode_labelled([{"image": tmp_path / "a.png", "label": tmp_path / "a_label.png"}], network, model.inferer)
    assert not data.label.any()
    assert data.image_label.tolist() == [1]
    # Its pixels are unknown then: they add nothing to the loss, which is that of the image alone.
    features = {"global_features": data.global_features, "patch_features": data.patch_features}
    with torch.no_grad():
        alone = torch.nn.functional.cross_entropy(network(features, output="logits")["image_logits"], torch.tensor([1]))
    report = tune_prompts(network, data, max_epochs=1)
    assert report.anomalous_slices == 1
    assert report.loss_before == pytest.approx(float(alone), rel=1e-5)
