# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's own app on a real DICOMweb server: CT, MR, MONOCHROME1 and RGB series."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.demo.volumes import make_volume, write_dicom_series, write_nifti
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.networks import read_prompts
from monai_anomalyclip.transforms import ScaleIntensityForCLIP

pytestmark = pytest.mark.label_server

MODEL = "anomalyclip_demo"
CT_SEED = 1
CT_SIZE = {"size": 64, "slices": 6}
CT = make_volume("head_ct", CT_SEED, **CT_SIZE)
XRAY = sample_phantom("chest_xray", True, 3).image[8:104, :, 0]
COLON = sample_phantom("endoscopy", True, 4).image[8:104]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> dict[str, list[Path]]:
    """Files of four series, by what they are."""
    root = tmp_path_factory.mktemp("series")
    write_dicom_series(root / "ct", CT_SEED, **CT_SIZE)
    options = {"count": 1, "signed": False, "positioned": False, "bits_stored": 8}
    return {
        "ct": sorted((root / "ct").iterdir()),
        "mr": phantoms.make_series(root / "mr", modality="MR", seed="mr", study="mr"),
        "cr": phantoms.make_series(
            root / "cr",
            modality="CR",
            seed="cr",
            study="cr",
            photometric="MONOCHROME1",
            edit=phantoms.picture(255 - XRAY),
            **options,
        ),
        "rgb": phantoms.make_series(
            root / "rgb",
            modality="ES",
            seed="rgb",
            study="rgb",
            photometric="RGB",
            edit=phantoms.picture(COLON),
            **options,
        ),
    }


@pytest.fixture(scope="module")
def archive(orthanc: Callable[..., Any], series: dict[str, list[Path]]) -> Any:
    return orthanc([file for files in series.values() for file in files])


@pytest.fixture(scope="module")
def bundle(new_bundle: Callable[[], Path]) -> Path:
    return new_bundle()


@pytest.fixture(scope="module")
def server(
    label_server: Callable[..., Any],
    archive: Any,  # before the server, so that without Orthanc none is started
    stock_app: Callable[[Path], Path],
    bundle: Path,
) -> Any:
    return label_server(stock_app(bundle), f"{archive.url}/dicom-web", models=MODEL)


def uid(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)


def volume(server: Any, files: list[Path], **params: Any) -> Any:
    content = server.infer(MODEL, uid(files), "image", result_extension=".nii.gz", **params)
    return nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(content))


def heat_of(bundle: Path, image: torch.Tensor) -> np.ndarray:
    """Map (H, W) of a picture (C, H, W) in [0, 1], from this process."""
    network = demo_network(prompt_length=12, deep_prompt_depth=4, deep_prompt_length=4)
    network.load_prompts(bundle / "models" / "model.pt")
    output = AnomalySliceInferer(network.image_size, sigma=1.0)(image[None], network)
    return np.asarray(output["anomaly_map"][0, 0])


def test_all_modalities_are_listed(server: Any, series: dict[str, list[Path]]) -> None:
    assert server.get("/datastore/")["total"] == len(series)
    assert server.next_sample("random")["id"] in {uid(files) for files in series.values()}


@pytest.mark.parametrize("kind", ["ct", "mr", "cr", "rgb"])
def test_every_series_has_a_score_and_a_map_on_its_grid(server: Any, series: dict[str, list[Path]], kind: str) -> None:
    result = server.infer(MODEL, uid(series[kind]))
    assert 0 <= result["anomaly_score"] <= 1
    heat = volume(server, series[kind], display="heat map", result_dtype="float32")
    header = pydicom.dcmread(series[kind][0])
    assert heat.shape == (header.Columns, header.Rows, len(series[kind]))
    assert 0 < np.asarray(heat.dataobj).max() <= 1


def test_ct_lies_where_the_series_lies(server: Any, series: dict[str, list[Path]]) -> None:
    np.testing.assert_allclose(volume(server, series["ct"]).affine, CT.affine, atol=1e-3)


def test_monochrome1_is_not_seen_upside_down(server: Any, series: dict[str, list[Path]], bundle: Path) -> None:
    heat = np.asarray(volume(server, series["cr"], display="heat map", result_dtype="float32").dataobj)[:, :, 0].T
    gray = torch.as_tensor(ScaleIntensityForCLIP()(torch.from_numpy(XRAY[None].astype(np.float32))))
    np.testing.assert_allclose(heat, heat_of(bundle, gray), atol=1e-3)
    assert abs(heat - heat_of(bundle, 1 - gray)).max() > 0.01


def test_rgb_series_is_seen_like_the_picture(server: Any, series: dict[str, list[Path]], bundle: Path) -> None:
    heat = np.asarray(volume(server, series["rgb"], display="heat map", result_dtype="float32").dataobj)[:, :, 0].T
    expected = heat_of(bundle, torch.from_numpy(COLON).permute(2, 0, 1).float() / 255)
    np.testing.assert_allclose(heat, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_segmentation_object_marks_what_the_mask_marks(server: Any, series: dict[str, list[Path]], kind: str) -> None:
    heat = np.asarray(volume(server, series[kind], display="heat map", result_dtype="float32").dataobj)
    threshold = float(np.quantile(heat, 0.7))
    options = {"threshold": threshold, "label_info": [{"name": "anomaly"}]}
    content = server.infer(MODEL, uid(series[kind]), "dicom_seg", result_extension=".nii.gz", **options)
    segmentation = pydicom.dcmread(io.BytesIO(content))
    mask = np.asarray(volume(server, series[kind], **options).dataobj)
    assert segmentation.SOPClassUID.name == "Segmentation Storage"
    assert segmentation.SegmentSequence[0].SegmentLabel == "anomaly"
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == uid(series[kind])
    assert int(segmentation.pixel_array.sum()) == int(mask.sum()) > 0


def test_corrected_label_goes_to_the_archive_and_changes_the_next_proposal(
    server: Any,
    series: dict[str, list[Path]],
    archive: Any,
    bundle: Path,
    tmp_path: Path,
    record_property: Callable[[str, str], None],
) -> None:
    def dice() -> float:
        found = np.asarray(volume(server, series["ct"], threshold=0.5).dataobj) > 0
        return 2 * float((found & CT.mask).sum()) / float(found.sum() + CT.mask.sum())

    before = dice()
    label = write_nifti(tmp_path / "label.nii.gz", CT.mask.astype(np.uint8), CT.affine)
    server.save_label(uid(series["ct"]), label, label_info=[{"name": "anomaly"}])
    modalities = [archive.get(f"/series/{key}")["MainDicomTags"]["Modality"] for key in archive.get("/series")]
    assert modalities.count("SEG") == 1
    server.train(MODEL, max_epochs=40, val_split=0, device="cpu")
    after = dice()
    record_property("figure", f"DICOMweb CT: Dice of the labelled phantom {before:.3f} before, {after:.3f} after")
    assert after > before + 0.1
    assert read_prompts(bundle / "models" / "model.pt").backbone["sha256"]
