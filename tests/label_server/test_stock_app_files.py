# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's own `monaibundle` app serves and tunes the demonstration bundle on volumes and on pictures."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.data import load_input
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.demo.volumes import make_volume, write_nifti
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.networks import read_prompts
from monai_anomalyclip.transforms import ScaleIntensityForCLIP

pytestmark = pytest.mark.label_server

MODEL = "anomalyclip_demo"
BRAINS = {"brain1": True, "brain2": True, "brain3": True, "healthy_brain": False}
COLONS = {"colon1": True, "colon2": True, "colon3": True, "healthy_colon": False}
HELD_OUT = {"brain": "brain3", "colon": "colon3"}  # seen by nobody who labels
Studies = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """Image and correct label by name: volumes no two of whose axes have the same length."""
    folder = tmp_path_factory.mktemp("brains")
    made = {}
    for seed, (name, anomalous) in enumerate(BRAINS.items()):
        phantom = make_volume("brain_mr", seed, anomalous=anomalous, size=64, slices=6)
        image, mask = phantom.image[:, 8:56], phantom.mask[:, 8:56].astype(np.uint8)
        made[name] = (
            write_nifti(folder / "studies" / f"{name}.nii.gz", image, phantom.affine),
            write_nifti(folder / "labels" / f"{name}.nii.gz", mask, phantom.affine),
        )
    return made


@pytest.fixture(scope="module")
def colons(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """The same for pictures that are not square."""
    folder = tmp_path_factory.mktemp("colons")
    made = {}
    for seed, (name, anomalous) in enumerate(COLONS.items()):
        phantom = sample_phantom("endoscopy", anomalous, seed)
        made[name] = (folder / "studies" / f"{name}.png", folder / "labels" / f"{name}.png")
        for path, pixels in zip(made[name], (phantom.image, phantom.mask.astype(np.uint8) * 255), strict=True):
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels[8:104]).save(path)
    return made


@pytest.fixture(scope="module", params=["brain", "colon"])
def case(
    request: pytest.FixtureRequest,
    brains: Studies,
    colons: Studies,
    label_server: Callable[..., Any],
    stock_app: Callable[[Path], Path],
    new_bundle: Callable[[], Path],
) -> tuple[str, Studies, Path, Any]:
    """Kind, studies, bundle and a server of both."""
    studies, bundle = {"brain": brains, "colon": colons}[request.param], new_bundle()
    server = label_server(stock_app(bundle), next(iter(studies.values()))[0].parent, models=MODEL)
    return request.param, studies, bundle, server


def read(content: bytes) -> np.ndarray:
    """A NIfTI volume, or a picture width first."""
    if content[:2] == b"\x1f\x8b":
        return np.asarray(nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
    return np.asarray(Image.open(io.BytesIO(content))).T


def dice(server: Any, studies: Studies, name: str) -> float:
    found = read(server.infer(MODEL, name, "image", threshold=0.5, result_dtype="uint8")) > 0
    truth = read(studies[name][1].read_bytes()) > 0
    return 2 * float((found & truth).sum()) / max(float(found.sum() + truth.sum()), 1)


def own_prediction(bundle: Path, image: Path) -> tuple[np.ndarray, float]:
    """Map (axes as in the answer) and score from this process, without bundle and server."""
    network = demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4)
    network.load_prompts(bundle / "models" / "model.pt")
    scaled = torch.as_tensor(ScaleIntensityForCLIP()(load_input(image)))
    output = AnomalySliceInferer(network.image_size, sigma=1.0)(scaled[None], network)
    heat = np.asarray(output["anomaly_map"][0, 0])
    return heat.T if heat.ndim == 2 else heat, float(output["anomaly_score"].max())


def test_server_lists_model_options_and_studies(case: tuple[str, Studies, Path, Any]) -> None:
    _, studies, _, server = case
    info = server.get("/info/")
    model = info["models"][MODEL]
    assert model["type"] == "segmentation"
    assert model["labels"] == {"anomaly": 1, "anomaly_0.75": 2, "anomaly_0.9": 3}
    assert model["config"]["display"] == ["mask", "levels", "heat map"]
    assert model["config"]["threshold"] == pytest.approx(0.3)
    assert MODEL in info["trainers"]
    assert server.get("/datastore/")["total"] == len(studies)
    assert server.next_sample("random")["id"] in studies


def test_answers_are_what_the_bundles_prompts_give(case: tuple[str, Studies, Path, Any]) -> None:
    kind, studies, bundle, server = case
    for name, (image, _) in studies.items():
        expected, score = own_prediction(bundle, image)
        result = server.infer(MODEL, name)
        assert result["anomaly_score"] == pytest.approx(score, rel=1e-3, abs=1e-6)
        assert "Research use only" in result["note"]
        heat = read(server.infer(MODEL, name, "image", display="heat map"))
        scale = 255 if kind == "colon" else 1
        np.testing.assert_allclose(heat, scale * expected, atol=0.51 if kind == "colon" else 1e-4)


def test_kinds_of_answer_agree(case: tuple[str, Studies, Path, Any]) -> None:
    kind, studies, bundle, server = case
    name, (image, _) = next(iter(studies.items()))
    heat, _ = own_prediction(bundle, image)
    middle = float(np.median(heat))
    result, content = server.infer_both(MODEL, name, threshold=middle)
    mask = read(content)
    assert mask.dtype == np.uint8
    clear = abs(heat - middle) > 1e-4
    np.testing.assert_array_equal(mask[clear], (heat >= middle)[clear])
    assert result["display"] == "mask"
    levels = read(server.infer(MODEL, name, "image", display="levels"))
    assert levels.max() <= 3
    assert ((levels >= 1) == (heat >= 0.5)).mean() > 0.999
    if kind == "brain":
        given = nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(content)).affine
        np.testing.assert_allclose(given, nib.loadsave.load(image).affine, atol=1e-4)


def test_corrected_labels_make_the_next_proposals_better(
    case: tuple[str, Studies, Path, Any], record_property: Callable[[str, str], None]
) -> None:
    kind, studies, bundle, server = case
    held_out = HELD_OUT[kind]
    before = dice(server, studies, held_out)
    untuned = read_prompts(bundle / "models" / "model.pt")
    for name, (_, label) in studies.items():
        if name != held_out:
            server.save_label(name, label)  # an empty one, too
    assert server.get("/datastore/")["completed"] == len(studies) - 1
    server.train(MODEL, max_epochs=20, val_split=0, device="cpu")
    tuned = read_prompts(bundle / "models" / "model.pt")
    assert not torch.equal(tuned.context_normal, untuned.context_normal)
    assert tuned.backbone == untuned.backbone
    after = dice(server, studies, held_out)
    record_property("figure", f"{kind}: Dice of the held-out phantom {before:.3f} before, {after:.3f} after")
    assert after > before + 0.1
    _, score = own_prediction(bundle, studies[held_out][0])
    assert server.infer(MODEL, held_out)["anomaly_score"] == pytest.approx(score, rel=1e-3, abs=1e-6)
