# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Our own app on a real DICOMweb server: the loop on CT series, and MR, MONOCHROME1 and RGB series."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.demo.studies import demo_seeds
from monai_anomalyclip.demo.volumes import VolumePhantom, write_dicom_series, write_nifti

pytestmark = pytest.mark.label_server

REPOSITORY = Path(__file__).parents[2]
CORRECTED = ["corrected0", "corrected1", "corrected2"]
HELD_OUT = ["held0", "held1", "held2"]
SIZE = {"size": 112, "slices": 12}
SEGMENT = [{"name": "anomaly", "model_name": "anomaly"}]
Start = Callable[..., Any]


def uid(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True).SeriesInstanceUID)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, VolumePhantom]]:
    """CT series with a bleed, and a normal one."""
    root = tmp_path_factory.mktemp("heads")
    names = [*CORRECTED, *HELD_OUT]
    made = {
        name: (root / name, write_dicom_series(root / name, seed, **SIZE))
        for name, seed in zip(names, islice(demo_seeds("head_ct"), len(names)), strict=True)
    }
    made["normal"] = (root / "normal", write_dicom_series(root / "normal", 5, anomalous=False, **SIZE))
    return made


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, phantoms: ModuleType) -> dict[str, Path]:
    """Series of other modalities; the two radiographs show the same."""
    root = tmp_path_factory.mktemp("others")
    xray = sample_phantom("chest_xray", True, 3).image[8:104, :, 0]
    colon = sample_phantom("endoscopy", True, 4).image[8:104]
    single = {"count": 1, "signed": False, "positioned": False, "bits_stored": 8}
    for name, pixels, photometric in [("cr", xray, "MONOCHROME2"), ("cr_inverted", 255 - xray, "MONOCHROME1")]:
        options = {"modality": "CR", "photometric": photometric, "seed": name, "study": name, **single}
        phantoms.make_series(root / name, edit=phantoms.picture(pixels), **options)
    options = {"modality": "ES", "photometric": "RGB", "seed": "rgb", "study": "rgb", **single}
    phantoms.make_series(root / "rgb", edit=phantoms.picture(colon), **options)
    phantoms.make_series(root / "mr", modality="MR", seed="mr", study="mr")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def archive(orthanc: Start, heads: dict[str, tuple[Path, VolumePhantom]], others: dict[str, Path]) -> Any:
    folders = [*(folder for folder, _ in heads.values()), *others.values()]
    return orthanc([file for folder in folders for file in sorted(folder.iterdir())])


@pytest.fixture(scope="module")
def server(
    label_server: Start, untuned_bundle: Callable[..., Path], archive: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    root = tmp_path_factory.mktemp("own_app")
    bundle = untuned_bundle(root)
    assert main(["label-app", str(root / "app"), "--bundle", str(bundle)]) == 0
    return label_server(root / "app", f"{archive.url}/dicom-web")


def volume(content: bytes) -> nib.nifti1.Nifti1Image:
    return nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def dice(server: Any, folder: Path, phantom: VolumePhantom) -> float:
    proposal = volume(server.infer("anomaly", uid(folder), "image"))
    np.testing.assert_allclose(proposal.affine, phantom.affine, atol=1e-3)
    marked = np.asarray(proposal.dataobj) > 0
    return 2 * int((marked & phantom.mask).sum()) / int(marked.sum() + phantom.mask.sum())


def segmentations(archive: Any) -> list[dict[str, Any]]:
    found = []
    for name in archive.get("/series"):
        tags = archive.get(f"/series/{name}")["MainDicomTags"]
        if tags["Modality"] == "SEG":
            found.append(tags)
    return found


def test_loop_makes_proposals_better(
    server: Any,
    archive: Any,
    heads: dict[str, tuple[Path, VolumePhantom]],
    tmp_path: Path,
    record_property: Callable[[str, str], None],
) -> None:
    assert server.get("/datastore/")["total"] == 11
    before = [dice(server, *heads[name]) for name in HELD_OUT]
    for name in CORRECTED:
        folder, phantom = heads[name]
        file = write_nifti(tmp_path / f"{name}.nii.gz", phantom.mask.astype(np.uint8), phantom.affine)
        assert server.save_label(uid(folder), file, label_info=SEGMENT)["normal"] is False
    assert len(segmentations(archive)) == 3

    folder, phantom = heads["normal"]
    empty = write_nifti(tmp_path / "normal.nii.gz", phantom.mask.astype(np.uint8), phantom.affine)
    answer = server.save_label(uid(folder), empty, label_info=SEGMENT)
    assert (answer["normal"], answer["archived"]) == (True, False)
    assert len(segmentations(archive)) == 3  # there is no segmentation of nothing
    status = server.get("/datastore/")
    assert status["completed"] == 4
    assert status["label_tags"] == {"final": 3, "kept": 1}

    result = server.train("anomaly")
    assert (result["images"], result["normal_images"], result["unreadable"]) == (4, 1, 0)
    after = [dice(server, *heads[name]) for name in HELD_OUT]
    record_property(
        "figure",
        f"DICOMweb, Dice on held-out phantoms: {np.mean(before):.2f} before, {np.mean(after):.2f} after ({after})",
    )
    assert np.mean(after) > np.mean(before) + 0.3


def test_labels_of_the_archive_are_tuned_on_where_the_cache_is_lost(
    server: Any, heads: dict[str, tuple[Path, VolumePhantom]], label_server: Start, archive: Any
) -> None:
    """A second server has nothing but the segmentations in the archive, whose slices run as DICOM orders them."""
    app = Path(next(part for part in server.process.args if str(part).endswith("/app")))
    fresh = label_server(app, f"{archive.url}/dicom-web")
    assert fresh.get("/datastore/")["completed"] == 3  # the normal study was known to the first server alone
    result = fresh.train("anomaly", max_epochs=1)
    assert (result["images"], result["normal_images"], result["unreadable"]) == (3, 0, 0)
    marked = sum(int(phantom.mask.any(axis=(0, 1)).sum()) for _, phantom in (heads[name] for name in CORRECTED))
    assert result["anomalous_slices"] == marked


def test_normal_study_that_turns_out_otherwise(
    server: Any, archive: Any, heads: dict[str, tuple[Path, VolumePhantom]], tmp_path: Path
) -> None:
    folder, phantom = heads["held2"]
    empty = write_nifti(tmp_path / "a.nii.gz", np.zeros_like(phantom.mask, dtype=np.uint8), phantom.affine)
    assert server.save_label(uid(folder), empty, label_info=SEGMENT)["normal"] is True
    assert server.get("/datastore/")["completed"] == 5
    lesion = write_nifti(tmp_path / "b.nii.gz", phantom.mask.astype(np.uint8), phantom.affine)
    assert server.save_label(uid(folder), lesion, label_info=SEGMENT)["normal"] is False
    assert server.get("/datastore/")["completed"] == 5
    labels = {Path(pair["image"]).name: pair["label"] for pair in server.get("/datastore/?output=train")}
    assert len(labels) == 5
    assert "/kept/" not in labels[f"{uid(folder)}.nii.gz"]


def test_segmentation_of_a_finding_and_of_nothing(server: Any, heads: dict[str, tuple[Path, VolumePhantom]]) -> None:
    folder, _ = heads["held0"]
    found = pydicom.dcmread(io.BytesIO(server.infer("anomaly", uid(folder), "dicom_seg", label_info=SEGMENT)))
    assert found.Modality == "SEG"
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == uid(folder)
    mask = np.asarray(volume(server.infer("anomaly", uid(folder), "image")).dataobj)
    assert int(found.pixel_array.sum()) == int(mask.sum()) > 0
    nothing = json.loads(server.infer("anomaly", uid(folder), "dicom_seg", label_info=SEGMENT, threshold=1.0))
    assert nothing["normal"] is True
    assert 0 <= nothing["anomaly_score"] <= 1


def test_inverted_radiograph_gives_what_its_twin_gives(server: Any, others: dict[str, Path]) -> None:
    heat = {
        name: np.asarray(volume(server.infer("anomaly_heatmap", uid(others[name]), "image")).dataobj)
        for name in ("cr", "cr_inverted")
    }
    assert heat["cr"].shape == (112, 96, 1)
    assert heat["cr"].std() > 1e-4
    np.testing.assert_allclose(heat["cr_inverted"], heat["cr"], atol=1e-5)


def test_colour_series_gives_what_its_picture_gives(server: Any, others: dict[str, Path], tmp_path: Path) -> None:
    heat = np.asarray(volume(server.infer("anomaly_heatmap", uid(others["rgb"]), "image")).dataobj)
    assert heat.shape == (112, 96, 1)
    score = server.infer("anomaly", uid(others["rgb"]))["anomaly_score"]
    Image.fromarray(sample_phantom("endoscopy", True, 4).image[8:104]).save(tmp_path / "colon.png")
    alone = server.infer_file("anomaly", tmp_path / "colon.png")
    assert score == pytest.approx(alone["anomaly_score"], abs=1e-4)


@pytest.mark.parametrize("name", ["cr_inverted", "rgb"])
def test_label_of_a_single_picture_is_saved_and_tuned_on(
    server: Any, others: dict[str, Path], tmp_path: Path, name: str
) -> None:
    heat = volume(server.infer("anomaly_heatmap", uid(others[name]), "image"))
    marked = np.zeros(heat.shape, dtype=np.uint8)
    marked[30:60, 20:40] = 1
    file = write_nifti(tmp_path / "label.nii.gz", marked, heat.affine)
    answer = server.save_label(uid(others[name]), file, label_info=SEGMENT)
    assert (answer["normal"], answer["archived"]) == (False, False)  # it has no position for a segmentation
    request = {"label_info": SEGMENT, "threshold": 0.0}
    told = json.loads(server.infer("anomaly", uid(others[name]), "dicom_seg", **request))
    assert (told["normal"], told["detail"]) == (
        False,
        "There is no segmentation: No segmentation can be made of this series.",
    )
    images = len(server.get("/datastore/?output=train"))
    result = server.train("anomaly", max_epochs=1)
    assert (result["images"], result["unreadable"]) == (images, 0)


def test_draft_and_damaged_label_go_nowhere(
    server: Any, archive: Any, heads: dict[str, tuple[Path, VolumePhantom]], tmp_path: Path
) -> None:
    folder, phantom = heads["held1"]
    before = len(segmentations(archive)), server.get("/datastore/")["completed"]
    draft = write_nifti(tmp_path / "draft.nii.gz", phantom.mask.astype(np.uint8), phantom.affine)
    answer = server.save_label(uid(folder), draft, tag="draft", label_info=SEGMENT)
    assert not {"normal", "archived"} & set(answer)
    (tmp_path / "damaged.nii.gz").write_bytes(b"nothing")
    with pytest.raises(AssertionError, match=r"400.*The label was not saved"):
        server.save_label(uid(folder), tmp_path / "damaged.nii.gz", label_info=SEGMENT)
    assert (len(segmentations(archive)), server.get("/datastore/")["completed"]) == before


def test_mr_is_on_its_own_grid(server: Any, others: dict[str, Path], tmp_path: Path) -> None:
    heat = volume(server.infer("anomaly_heatmap", uid(others["mr"]), "image"))
    header = pydicom.dcmread(sorted(others["mr"].iterdir())[0])
    assert heat.shape == (header.Columns, header.Rows, 6)
    spacing = np.linalg.norm(heat.affine[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, [header.PixelSpacing[1], header.PixelSpacing[0], 3.0], atol=1e-4)


def test_scores_choose_the_next_series(server: Any, heads: dict[str, tuple[Path, VolumePhantom]]) -> None:
    scored = server.post_json("/scoring/anomaly_score?run_sync=true", {})
    assert (scored["failed"], scored["executed"]) == (0, scored["total"])
    assert server.next_sample("highest_score")["anomaly_score"] > 0


def test_hostile_requests_are_refused(
    server: Any, archive: Any, heads: dict[str, tuple[Path, VolumePhantom]], tmp_path: Path
) -> None:
    image = uid(heads["held1"][0])
    server.infer("anomaly", image)  # fetches it
    cache = next(server.log.parent.joinpath("dicomweb").iterdir())
    before = {str(path) for path in server.log.parent.rglob("*")}, len(archive.get("/instances"))
    for method, target, expected in [
        ("POST", "/infer/anomaly?image=..%2Flabels", 400),
        ("POST", f"/infer/anomaly?image={quote(str(cache), safe='')}", 400),
        ("POST", "/infer/anomaly?image=labels", 400),
        ("POST", "/infer/anomaly?image=1.2.3.4", 404),
        ("GET", "/datastore/image?image=1.2.3.4", 404),
        ("GET", "/datastore/label?label=..%2F..&tag=final", 400),
        ("DELETE", f"/datastore/image?id={image}", 400),
        ("DELETE", f"/datastore/label?id={image}&tag=final", 400),
        ("GET", "/proxy/dicom/..%2Fsystem", 400),
        ("POST", "/proxy/dicom/%2e%2e/tools/shutdown", 400),
        ("POST", "/proxy/dicom/%252e%252e/tools/shutdown", 400),
        ("GET", "/proxy/dicom/studies", 200),
    ]:
        status, content, _ = server.ask(method, target)
        assert status == expected, (target, content[:300])
    (tmp_path / "x.bin").write_bytes(b"\1\2\3")  # for an image of the archive's name, and a label too short
    for target, field in [("image", "file"), ("label", "label")]:
        status, content = server.send_file("PUT", f"/datastore/{target}?image={image}", field, tmp_path / "x.bin")
        assert (status, json.loads(content)["detail"][-1]) == (400, ".")
    assert {str(path) for path in server.log.parent.rglob("*")} <= before[0]
    assert len(archive.get("/instances")) == before[1]
