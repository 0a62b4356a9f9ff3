# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The same picture gives the same score and map to the last bit, by whatever road it comes to the network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_anomalyclip.data import load_input
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.demo.volumes import make_volume, write_dicom_series
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.label import AnomalyModel
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.transforms import CLIPPreprocess, resize_anomaly_map, smooth_anomaly_map

Result = tuple[float, torch.Tensor]  # the score and the map (1, H, W) at the picture's size
DEMO = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / DEMO.name
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("data", "runs", "*.pt", "*.json.lock"))
    torch.manual_seed(0)
    demo_network(deep_prompt_depth=4).save_prompts(folder / "models" / "model.pt")
    return folder


@pytest.fixture(scope="module")
def network(bundle: Path) -> AnomalyCLIP:
    network = demo_network(deep_prompt_depth=4).eval()
    network.load_prompts(bundle / "models" / "model.pt")
    return network


@pytest.fixture(scope="module", params=["RGB", "L"])
def picture(request: pytest.FixtureRequest) -> Image.Image:
    """Larger and smaller than the network's input, so that resizing has all to do that it can."""
    pixels = Image.fromarray(sample_phantom("endoscopy", True, 4).image)
    return pixels.resize((333, 91)).convert(request.param)


def through_the_inferer(image: torch.Tensor, network: AnomalyCLIP) -> Result:
    output = AnomalySliceInferer(network.image_size, sigma=1.0)(image[None], network)
    return output["anomaly_score"].max().item(), output["anomaly_map"][0].float()


def by_hand(image: Image.Image | np.ndarray, network: AnomalyCLIP, size: tuple[int, int]) -> Result:
    """The README's lines."""
    with torch.inference_mode():
        output = network.predict(CLIPPreprocess(network.image_size)(image)[None])
        smooth = smooth_anomaly_map(output["anomaly_map"], 1.0)
        return output["anomaly_score"].item(), resize_anomaly_map(smooth, size)[0]


def through_the_bundle(folder: Path, bundle: Path, output: Path) -> Result:
    """Its inference workflow, as `monai-anomalyclip predict` and `python -m monai.bundle run` start it."""
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), workflow_type="infer", logging_file=False,
        bundle_root=str(bundle), dataset_dir=str(folder), output_dir=str(output), device="$torch.device('cpu')",
    )  # fmt: skip
    workflow.initialize()
    dataset, inferer, network = (workflow.parser.get_parsed_content(name) for name in ("dataset", "inferer", "network"))
    (item,) = dataset
    found = inferer(item["image"][None], network)
    return found["anomaly_score"].max().item(), found["anomaly_map"][0].as_tensor()


def test_every_road_of_a_picture(picture: Image.Image, network: AnomalyCLIP, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    picture.save(folder / "a.png")
    pixels = np.asarray(picture)
    array = np.ascontiguousarray(pixels.transpose(2, 0, 1)) if pixels.ndim == 3 else pixels[None]
    unit = torch.from_numpy(array.astype(np.float32) / 255)
    size = pixels.shape[:2]
    label_app = AnomalyModel(bundle, tmp_path / "app").predict(folder / "a.png")
    roads: dict[str, Result] = {
        "array by hand": by_hand(array, network, size),
        "float array by hand": by_hand(array / 255, network, size),
        "path": through_the_inferer(load_input(folder / "a.png"), network),
        "tensor": through_the_inferer(unit, network),
        "uint8 over 255 by multiplication": through_the_inferer(torch.from_numpy(array) * (1 / 255), network),
        "bundle": through_the_bundle(folder, bundle, tmp_path / "out"),
        "label app": (label_app.anomaly_score, label_app.anomaly_map.as_tensor()),
    }
    score, heat = by_hand(picture, network, size)
    assert heat.std() > 0
    for name, (other_score, other_heat) in roads.items():
        assert (name, other_score) == (name, score)
        assert torch.equal(other_heat, heat), name


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_every_road_of_a_volume(
    kind: str, network: AnomalyCLIP, bundle: Path, tmp_path: Path, write: Callable[[Path, str], Path]
) -> None:
    path = write(tmp_path / "in", kind)
    score, heat = through_the_bundle(path, bundle, tmp_path / "out")
    output = AnomalySliceInferer(network.image_size, sigma=1.0)(load_input(path)[None], network)
    app = AnomalyModel(bundle, tmp_path / "app").predict(path)
    assert output["anomaly_score"].max().item() == app.anomaly_score == score
    assert torch.equal(output["anomaly_map"][0].as_tensor(), heat)
    assert torch.equal(app.anomaly_map.as_tensor(), heat)


@pytest.fixture
def write() -> Callable[[Path, str], Path]:
    def write_volume(folder: Path, kind: str) -> Path:
        phantom = write_dicom_series(folder / "study", 3, size=64, slices=9)
        if kind == "dicom":
            return folder / "study"
        nib.loadsave.save(nib.nifti1.Nifti1Image(phantom.image, phantom.affine), folder / "a.nii.gz")
        return folder / "a.nii.gz"

    return write_volume


def test_z_scored_head_gives_its_score_wherever_its_background_lies(network: AnomalyCLIP, tmp_path: Path) -> None:
    """Within what the one value makes that is both tissue and background."""
    phantom = make_volume("brain_mr", 3, size=96, slices=8)
    values = phantom.image.astype(np.float32)
    inside = values > values.min() + 0.05 * np.ptp(values)
    z = (values - values[inside].mean()) / values[inside].std()
    found = []
    for name, background in (("zero", 0.0), ("minimum", z[inside].min())):
        image = nib.nifti1.Nifti1Image(np.where(inside, z, background).astype(np.float32), phantom.affine)
        nib.loadsave.save(image, tmp_path / f"{name}.nii.gz")
        shown = load_input(tmp_path / f"{name}.nii.gz")
        assert float(shown[0][torch.from_numpy(~inside)].max()) == 0
        found.append((shown, through_the_inferer(shown, network)[1]))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=0.01)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=0.01)
