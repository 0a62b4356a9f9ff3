# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.label import AnomalyModel, encode_labelled, tune_prompts
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.transforms import CLIPMaskPreprocess, CLIPPreprocess

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
