# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Our own app on a folder of NIfTI volumes and pictures: proposals, corrections, re-tuning, better proposals."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.demo.studies import demo_seeds, demo_volume
from monai_anomalyclip.demo.volumes import write_nifti

pytestmark = pytest.mark.label_server

REPOSITORY = Path(__file__).parents[2]
CORRECTED = ["corrected0", "corrected1", "corrected2"]
HELD_OUT = ["held0", "held1", "held2", "held3"]
Start = Callable[..., Any]


@pytest.fixture(scope="module")
def app(untuned_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app whose prompts were never tuned, so that there is room for improvement."""
    root = tmp_path_factory.mktemp("own_app")
    bundle = untuned_bundle(root)
    assert main(["label-app", str(root / "app"), "--bundle", str(bundle)]) == 0
    return root / "app"


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of lesion masks; the images lie in its neighbour ``studies``."""
    root = tmp_path_factory.mktemp("phantoms")
    names = [*CORRECTED, *HELD_OUT]
    for name, seed in zip(names, islice(demo_seeds("brain_mr"), len(names)), strict=True):
        phantom = demo_volume("brain_mr", seed)
        write_nifti(root / "studies" / f"{name}.nii.gz", phantom.image, phantom.affine)
        write_nifti(root / "truth" / f"{name}.nii.gz", phantom.mask.astype(np.uint8), phantom.affine)
    healthy = demo_volume("brain_mr", 7, anomalous=False)
    write_nifti(root / "studies" / "normal.nii.gz", healthy.image, healthy.affine)
    write_nifti(root / "truth" / "normal.nii.gz", healthy.mask.astype(np.uint8), healthy.affine)
    # Not square, so that exchanged axes show.
    picture = sample_phantom("endoscopy", True, 4)
    Image.fromarray(picture.image[:96]).save(root / "studies" / "polyp.jpg", quality=95)
    Image.fromarray(picture.mask[:96].astype(np.uint8) * 255).save(root / "truth" / "polyp.png")
    return root / "truth"


@pytest.fixture(scope="module")
def server(label_server: Start, app: Path, truth: Path) -> Any:
    return label_server(app, truth.parent / "studies")


def volume(content: bytes) -> nib.nifti1.Nifti1Image:
    return nib.nifti1.Nifti1Image.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def true_mask(truth: Path, name: str) -> np.ndarray:
    return np.asarray(nib.loadsave.load(truth / f"{name}.nii.gz").dataobj) > 0


def dices(server: Any, truth: Path, names: Sequence[str]) -> list[float]:
    found = []
    for name in names:
        proposal = np.asarray(volume(server.infer("anomaly", name, "image")).dataobj) > 0
        lesion = true_mask(truth, name)
        found.append(2 * int((proposal & lesion).sum()) / int(proposal.sum() + lesion.sum()))
    return found


def test_info_offers_what_the_app_has(server: Any) -> None:
    info = server.get("/info/")
    assert set(info["models"]) == {"anomaly", "anomaly_levels", "anomaly_heatmap", "anomaly_polygons"}
    assert info["models"]["anomaly_levels"]["labels"] == {"anomaly_0.50": 1, "anomaly_0.75": 2, "anomaly_0.90": 3}
    # Viewers offer segmentations; in their uint8 a heat map would be zeros.
    kinds = {name: model["type"] for name, model in info["models"].items()}
    assert kinds["anomaly"] == kinds["anomaly_levels"] == "segmentation"
    assert kinds["anomaly_heatmap"] == "others"
    assert set(info["trainers"]) == {"anomaly"}
    assert {"highest_score", "most_uncertain", "most_diverse"} <= set(info["strategies"])
    assert set(info["scoring"]) == {"anomaly_score"}
    assert "Research use only" in info["description"]


def test_loop_makes_proposals_better(
    server: Any, app: Path, truth: Path, record_property: Callable[[str, str], None]
) -> None:
    before = dices(server, truth, HELD_OUT)
    first = server.infer("anomaly", HELD_OUT[0])
    scored = server.post_json("/scoring/anomaly_score?run_sync=true", {})
    assert (scored["executed"], scored["failed"]) == (9, 0)
    again = server.post_json("/scoring/anomaly_score?run_sync=true", {})
    assert (again["executed"], again["skipped"]) == (0, 9)

    for name in (*CORRECTED, "normal"):
        answer = server.save_label(name, truth / f"{name}.nii.gz")
        assert answer["normal"] is (name == "normal")
    result = server.train("anomaly")
    assert (result["images"], result["normal_images"], result["unreadable"]) == (4, 1, 0)
    assert result["loss_after"] < result["loss_before"]
    assert result["seconds"] < 60

    second = server.infer("anomaly", HELD_OUT[0])
    assert second["prompts"] == result["prompts"] != first["prompts"]
    assert (app / "model" / "prompts.pt").is_file()
    assert [path.stem for path in (app / "model" / "previous").iterdir()] == [f"prompts_{first['prompts']}"]
    assert server.get("/info/")["train_stats"]["anomaly"] == result

    after = dices(server, truth, HELD_OUT)
    record_property(
        "figure",
        f"NIfTI, Dice on held-out phantoms: {np.mean(before):.2f} before, {np.mean(after):.2f} after ({after})",
    )
    assert np.mean(after) > np.mean(before) + 0.3
    # Scores of other prompts do not count.
    assert server.post_json("/scoring/anomaly_score?run_sync=true", {})["executed"] == 5


def test_strategies_rank_by_stored_scores(server: Any) -> None:
    server.post_json("/scoring/anomaly_score?run_sync=true", {})
    objects = server.get("/datastore/?output=all")["objects"]
    left = {name: entry["image"]["info"] for name, entry in objects.items() if "final" not in entry["labels"]}
    assert set(left) == {*HELD_OUT, "polyp"}
    order = sorted(left, key=lambda name: -left[name]["anomaly_score"])
    offered = server.next_sample("highest_score")
    assert offered["id"] == order[0]
    # The next one is another, for the first was just given to somebody.
    assert server.next_sample("highest_score")["id"] == order[1]
    uncertain = server.next_sample("most_uncertain")
    assert uncertain["id"] == min(order[2:], key=lambda name: abs(left[name]["anomaly_score"] - 0.5))
    assert server.next_sample("most_diverse")["id"] in set(order) - {uncertain["id"], *order[:2]}


def test_heat_map_and_levels_agree_with_the_mask(server: Any, truth: Path) -> None:
    source = nib.loadsave.load(truth / "held0.nii.gz")
    heat = volume(server.infer("anomaly_heatmap", "held0", "image", result_dtype="uint8"))
    assert heat.get_data_dtype() == np.float32
    np.testing.assert_allclose(heat.affine, source.affine, atol=1e-4)
    values = np.asarray(heat.dataobj)
    assert 0.5 < values.max() <= 1
    mask = volume(server.infer("anomaly", "held0", "image", threshold=0.3))
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), values >= 0.3)
    levels = np.asarray(volume(server.infer("anomaly_levels", "held0", "image")).dataobj)
    np.testing.assert_array_equal(levels, sum((values >= level).astype(int) for level in (0.5, 0.75, 0.9)))


def test_viewers_ask_for_nrrd(server: Any, truth: Path, tmp_path: Path) -> None:
    content = server.infer("anomaly", "held0", "image", result_extension=".nrrd", result_dtype="uint8")
    (tmp_path / "mask.nrrd").write_bytes(content)
    seen = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "mask.nrrd")).transpose()
    expected = np.asarray(volume(server.infer("anomaly", "held0", "image")).dataobj)
    np.testing.assert_array_equal(seen, expected)


def test_picture_keeps_its_axes(server: Any, truth: Path) -> None:
    heat = server.infer("anomaly_heatmap", "polyp", "image")
    values = np.asarray(volume(heat).dataobj).squeeze()
    assert values.shape == (112, 96)  # columns first
    params, content = server.infer_both("anomaly", "polyp", threshold=0.2)
    mask = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(mask, values.T >= 0.2)
    assert (params["slice"], params["threshold"]) == (0, 0.2)
    lesion = np.asarray(Image.open(truth / "polyp.png")) > 0
    assert values.T[lesion].mean() > 2 * values.T[~lesion].mean()


def test_label_of_a_picture_is_tuned_on(server: Any, truth: Path) -> None:
    assert server.save_label("polyp", truth / "polyp.png")["normal"] is False
    result = server.train("anomaly", max_epochs=2)
    assert (result["images"], result["unreadable"]) == (5, 0)


def test_what_is_wrong_is_said(server: Any) -> None:
    for model, image, params, said in [
        ("anomaly_polygons", "held0", {}, "pictures only"),
        ("anomaly", "held0", {"threshold": 2}, "threshold must be one number"),
        ("anomaly", "held0", {"threshold": "calibrated"}, "calibrate"),
        ("anomaly", "held0", {"preset": "ct-nose"}, "no intensity preset 'ct-nose'"),
    ]:
        with pytest.raises(AssertionError, match="400") as failed:
            server.infer(model, image, **params)
        assert said in str(failed.value)


def test_damaged_label_is_refused_and_the_one_of_before_stays(server: Any, truth: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.nii.gz").write_bytes(b"nothing")
    for name in (CORRECTED[0], HELD_OUT[0]):
        with pytest.raises(AssertionError, match=r"400.*The label was not saved: Cannot read the label"):
            server.save_label(name, tmp_path / "damaged.nii.gz")
    labels = {name: entry["labels"] for name, entry in server.get("/datastore/?output=all")["objects"].items()}
    assert labels[HELD_OUT[0]] == {}
    assert labels[CORRECTED[0]]["final"]["info"]["normal"] is False
    kept, _ = server.request(f"/datastore/label?label={CORRECTED[0]}&tag=final")
    assert kept == (truth / f"{CORRECTED[0]}.nii.gz").read_bytes()


def test_only_final_labels_are_called_normal_or_not(server: Any, truth: Path) -> None:
    assert server.save_label("normal", truth / "normal.nii.gz")["normal"] is True
    assert "normal" not in server.save_label("normal", truth / "normal.nii.gz", tag="draft")


def test_batch_inference_without_options_on_a_cpu(server: Any) -> None:
    answers = server.post_json("/batch/infer/anomaly?images=unlabeled&run_sync=true", {})
    assert set(answers) == set(HELD_OUT)
    assert all(0 <= answer["params"]["anomaly_score"] <= 1 for answer in answers.values())


def test_app_does_not_start_without_prompts(label_python: Path, app: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(Path(json.loads((app / "label_app.json").read_text())["bundle"]), bundle)
    (bundle / "models" / "model.pt").unlink()
    assert main(["label-app", str(tmp_path / "app"), "--bundle", str(bundle)]) == 0
    script = (
        "from monailabel.interfaces.utils.app import app_instance; import sys; "
        "app_instance(sys.argv[1], sys.argv[2], {'server_mode': 'true'})"
    )
    failed = subprocess.run(
        [str(label_python), "-c", script, str(tmp_path / "app"), str(tmp_path / "studies")],
        capture_output=True,
        text=True,
    )
    assert failed.returncode != 0
    assert "There are no prompts at" in failed.stderr
