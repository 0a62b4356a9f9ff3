# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of both bundles: figures, files, processes, files that cannot be read, thresholds."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from monai_anomalyclip.data import UnreadableItemsError, read_mask
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.metrics import ImageAUROCMetric
from monai_anomalyclip.networks import AnomalyCLIP, CalibratedThresholds
from monai_anomalyclip.transforms import CLIPMaskPreprocess, CLIPPreprocess, smooth_anomaly_map

REPOSITORY = Path(__file__).parents[2]
BUNDLES = ["anomalyclip", "anomalyclip_demo"]
PICTURES = {"image_auroc_curve.png", "pixel_auroc_curve.png", "pixel_aupro_curve.png"}
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.filterwarnings("ignore:.*is undefined")


@pytest.fixture(scope="module")
def network(data_dir: Path, tiny_config: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of AnomalyCLIP on the tiny reference CLIP."""
    return {
        "model_name": tiny_config["clip"],
        "pretrained": str(data_dir / "tiny" / "clip_weights_fp16.safetensors"),
        "image_size": 84,
        "feature_layers": [6, 12],
        "dpam_start": 5,
        "deep_prompt_depth": 5,
    }


@pytest.fixture(scope="module")
def models(network: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts and the overlay that puts the tiny CLIP into any bundle."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(4)
    AnomalyCLIP(**network).save_prompts(folder / "model.pt")
    target = {"_target_": "monai_anomalyclip.networks.AnomalyCLIP", **network}
    (folder / "tiny.json").write_text(json.dumps({"network_def": target}))
    return folder


def files(bundle: str, models: Path, *names: str) -> list[str]:
    folder = REPOSITORY / "bundles" / bundle / "configs"
    return [*(str(folder / f"{name}.json") for name in ("train", *names)), str(models / "tiny.json")]


def arguments(bundle: str, models: Path, data: Path, output: Path) -> dict[str, str]:
    return {
        "bundle_root": str(REPOSITORY / "bundles" / bundle),
        "dataset_dir": str(data),
        "output_dir": str(output),
        "model_dir": str(output / "models"),
        "prompts": str(models / "model.pt"),
        "device": "$torch.device('cpu')",
    }


def workflow(bundle: str, models: Path, data: Path, output: Path, *names: str, **overrides: Any) -> ConfigWorkflow:
    made = ConfigWorkflow(
        files(bundle, models, *names),
        workflow_type="train",
        logging_file=False,
        **{**arguments(bundle, models, data, output), **overrides},
    )
    made.initialize()
    return made


def evaluate(bundle: str, models: Path, data: Path, output: Path, *names: str, **overrides: Any) -> dict[str, float]:
    made = workflow(bundle, models, data, output, "evaluate", *names, **overrides)
    made.run()
    made.finalize()
    metrics: dict[str, float] = made.parser.get_parsed_content("validate#evaluator").state.metrics
    return metrics


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def figures(output: Path) -> dict[str, float]:
    return {name: float(value) for name, value in csv.reader((output / "metrics.csv").open())}


def network_input(path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return CLIPPreprocess(84)(torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1))


@pytest.fixture(scope="module")
def predicted(network: dict[str, Any], models: Path, few_phantoms: Path) -> dict[str, Any]:
    """What the network gives for the testing images, computed without engines, data sets and handlers."""
    net = AnomalyCLIP(**network).eval()
    net.load_prompts(models / "model.pt")
    entries = json.loads((few_phantoms / "datalist.json").read_text())["testing"]
    images = torch.stack([network_input(few_phantoms / entry["image"]) for entry in entries])
    masks = torch.zeros(len(entries), 1, 84, 84)
    for index, entry in enumerate(entries):
        if "label" in entry:
            masks[index] = torch.as_tensor(
                CLIPMaskPreprocess(84)(torch.from_numpy(read_mask(few_phantoms / entry["label"]))[None])
            )
    with torch.inference_mode():
        prediction, logits = net.predict(images), net(images, output="logits")
    return {
        "class": np.array([entry["class"] for entry in entries]),
        "label": torch.tensor([entry["image_label"] for entry in entries]),
        "masks": masks,
        "scores": prediction["anomaly_score"],
        "maps": prediction["anomaly_map"],
        "logits": logits,
    }


@pytest.mark.parametrize("bundle", BUNDLES)
def test_figures_and_files(
    bundle: str, models: Path, few_phantoms: Path, predicted: dict[str, Any], tmp_path: Path
) -> None:
    metrics = evaluate(bundle, models, few_phantoms, tmp_path)
    maps = smooth_anomaly_map(predicted["maps"], 1.0 if bundle == "anomalyclip_demo" else 4.0)
    scores, labels = predicted["scores"].numpy(), predicted["label"].numpy()
    names = sorted(set(predicted["class"]))
    for kind, oracle in (("auroc", roc_auc_score), ("ap", average_precision_score)):
        for name in names:
            own = predicted["class"] == name
            assert metrics[f"image_{kind}/{name}"] == pytest.approx(oracle(labels[own], scores[own]), abs=1e-6)
            pixels = oracle(predicted["masks"][own].flatten(), maps[own].flatten())
            assert metrics[f"pixel_{kind}/{name}"] == pytest.approx(pixels, abs=1e-5)
        for level in ("image", "pixel"):
            mean = np.mean([metrics[f"{level}_{kind}/{name}"] for name in names])
            assert metrics[f"{level}_{kind}"] == pytest.approx(mean, abs=1e-12)
    loss = GlocalLoss()
    loss(predicted["logits"], {"image_label": predicted["label"], "label": predicted["masks"]})
    for name in ("global", "focal", "dice_abnormal", "dice_normal"):
        assert metrics[f"loss_{name}"] == pytest.approx(float(loss.last_terms[name]), abs=1e-5)
    regions = {key: value for key, value in metrics.items() if key.startswith("region_recall/regions")}
    assert sum(regions.values()) >= labels.sum()
    assert len(regions) == 3

    assert figures(tmp_path) == pytest.approx(metrics, nan_ok=True)
    table = rows(tmp_path / "metrics_per_class.csv")
    assert [row["class"] for row in table] == [*names, "mean"]
    for metric in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro", "pixel_aupro_200"):
        assert float(table[-1][metric]) == pytest.approx(metrics[metric], nan_ok=True)
    for row in table:
        assert float(row["image_auroc_low"]) <= float(row["image_auroc"]) <= float(row["image_auroc_high"])
    assert (tmp_path / "metrics_per_class.md").read_text().count("\n") == len(names) + 3
    assert {path.name for path in tmp_path.glob("*.png")} == PICTURES
    cases = rows(tmp_path / "worst_cases" / "worst_cases.csv")
    assert len(cases) == len(list((tmp_path / "worst_cases").glob("*.jpg"))) == 10
    lowest = min((index for index in range(len(scores)) if labels[index]), key=lambda index: scores[index])
    assert int(cases[0]["index"]) == lowest
    assert float(cases[0]["anomaly_score"]) == pytest.approx(scores[lowest], abs=1e-6)
    assert not (tmp_path / "unreadable.csv").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@pytest.fixture(scope="module")
def damaged(few_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms with one testing image cut short, one missing and one mask that is no picture."""
    folder = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(few_phantoms, folder)
    entries = json.loads((folder / "datalist.json").read_text())["testing"]
    cut = folder / entries[1]["image"]
    cut.write_bytes(cut.read_bytes()[:70])
    (folder / entries[6]["image"]).unlink()
    masked = next(index for index, entry in enumerate(entries) if index > 6 and "label" in entry)
    (folder / entries[masked]["label"]).write_text("text")
    return folder


def test_unreadable_files_are_named_and_left_out_also_on_two_processes(
    damaged: Path, models: Path, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((damaged / "datalist.json").read_text())
    one = tmp_path / "one"
    with pytest.raises(RuntimeError) as caught:
        evaluate("anomalyclip_demo", models, damaged, one)
    assert isinstance(caught.value.__cause__, UnreadableItemsError)
    table = rows(one / "unreadable.csv")
    bad = [int(row["index"]) for row in table]
    assert bad[:2] == [1, 6]
    assert len(bad) == 3
    for row in table:
        assert row["file"] == Path(content["testing"][int(row["index"])]["image"]).name
        assert f"entry {row['index']}, {row['file']} (" in caplog.text
        assert f"entry {row['index']}, {row['file']} (" in str(caught.value.__cause__)
        assert str(damaged) not in row["reason"]
    assert str(damaged.parent) not in caplog.text

    # The figures are those of the others.
    good = [entry for index, entry in enumerate(content["testing"]) if index not in bad]
    (damaged / "good.json").write_text(json.dumps({"testing": good}))
    metrics = evaluate(
        "anomalyclip_demo",
        models,
        damaged,
        tmp_path / "good",
        datalist=str(damaged / "good.json"),
        feature_cache="memory",
    )
    assert figures(one) == pytest.approx(metrics, abs=1e-5, nan_ok=True)

    # And the same on two processes, which have 7 and 6 images.
    two = tmp_path / "two"
    options = [f"--{key}={value}" for key, value in arguments("anomalyclip_demo", models, damaged, two).items()]
    line = ["torchrun", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run", *options[:3], *options[4:5]]
    line.append(f"--config_file={files('anomalyclip_demo', models, 'evaluate', 'multi_gpu_evaluate')}")
    done = run(" ".join(f'"{part}"' for part in line), check=False)
    assert done.returncode != 0
    assert "UnreadableItemsError: 3 of 16 images cannot be read: entry 1, " in done.stderr
    assert done.stdout.count("Metrics in per cent:") == 1
    assert figures(two) == pytest.approx(figures(one), abs=1e-5, nan_ok=True)
    assert rows(two / "unreadable.csv") == table
    chosen = [[row["picture"] for row in rows(folder / "worst_cases" / "worst_cases.csv")] for folder in (one, two)]
    assert chosen[0] == chosen[1]
    for folder in (one, two):
        assert {path.name for path in folder.glob("*.png")} == PICTURES
        assert len(list((folder / "worst_cases").glob("*.jpg"))) == 10


@pytest.mark.parametrize("bundle", BUNDLES)
def test_evaluation_needs_no_training_images(bundle: str, models: Path, few_phantoms: Path, tmp_path: Path) -> None:
    content = json.loads((few_phantoms / "datalist.json").read_text())
    for section in ("testing", "validation"):
        path = tmp_path / f"{section}.json"
        entries = [
            {key: str(few_phantoms / value) if key in ("image", "label") else value for key, value in entry.items()}
            for entry in content[section]
        ]
        path.write_text(json.dumps({section: entries}))
        names = () if section == "testing" else ("calibrate",)
        metrics = evaluate(bundle, models, tmp_path, tmp_path / section, *names, datalist=str(path))
        assert 0 <= metrics["image_auroc"] <= 1


def test_tuning_refuses_unreadable_files_or_leaves_them_out(
    few_phantoms: Path, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(few_phantoms, tmp_path / "data")
    entries = json.loads((tmp_path / "data" / "datalist.json").read_text())
    for section, index in (("training", 3), ("validation", 2)):
        (tmp_path / "data" / entries[section][index]["image"]).write_bytes(b"text")
    for options in ({"feature_cache": "off"}, {}):
        with pytest.raises(RuntimeError) as caught:
            workflow("anomalyclip", models, tmp_path / "data", tmp_path / "no", max_epochs=1, **options).run()
        assert "1 of 24 images cannot be read: entry 3, " in str(caught.value.__cause__)
        assert not list(tmp_path.rglob("*.pt"))
    made = workflow("anomalyclip", models, tmp_path / "data", tmp_path / "yes", max_epochs=1, skip_unreadable=True)
    made.run()
    assert (tmp_path / "yes" / "models" / "model.pt").is_file()
    assert len(made.train_dataset) == 23
    assert [entry["index"] for entry in made.train_dataset_data] == [*range(3), *range(4, 24)]
    assert "1 of 24 images cannot be read" in caplog.text
    assert "1 of 12 images cannot be read" in caplog.text


@pytest.mark.parametrize("bundle", BUNDLES)
def test_undefined_key_metric_never_stays_the_best(
    bundle: str, few_phantoms: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [math.nan, 0.7, 0.6, math.nan]
    given = iter(values)
    monkeypatch.setattr(ImageAUROCMetric, "compute", lambda _: (next(given), None))
    made = workflow(bundle, models, few_phantoms, tmp_path, max_epochs=len(values))
    made.run()
    state = made.parser.get_parsed_content("validate#evaluator").state
    assert (float(state.best_metric), state.best_metric_epoch) == (0.7, 2)
    checkpoint, best = (
        torch.load(path, weights_only=True)
        for path in (tmp_path / "checkpoints" / "checkpoint_epoch=2.pt", tmp_path / "models" / "model_best.pt")
    )
    assert all(torch.equal(value, best[key]) for key, value in checkpoint["model"].items())


def test_datalist_without_classes_and_options(few_phantoms: Path, models: Path, tmp_path: Path) -> None:
    content = json.loads((few_phantoms / "datalist.json").read_text())
    bare = [{key: value for key, value in entry.items() if key != "class"} for entry in content["testing"]]
    for entry in bare:
        for key in {"image", "label"} & set(entry):
            entry[key] = str(few_phantoms / entry[key])
    del next(entry for entry in bare if entry["image_label"])["label"]  # its mask is unknown
    (tmp_path / "datalist.json").write_text(json.dumps({"test": bare}))
    options = {"section": "test", "pixel_method": "histogram", "bootstrap": 20, "bootstrap_pixels": True}
    metrics = evaluate("anomalyclip_demo", models, tmp_path, tmp_path / "out", **options)
    assert "pixel_aupro_200" not in metrics
    (every, mean) = rows(tmp_path / "out" / "metrics_per_class.csv")
    assert (every["class"], mean["class"]) == ("all", "mean")
    assert every["image_auroc"] == mean["image_auroc"]
    assert float(mean["pixel_aupro_low"]) < float(mean["pixel_aupro_high"])
    without = evaluate("anomalyclip_demo", models, tmp_path, tmp_path / "less", section="test", bootstrap=0)
    assert not [name for name in without if "_low" in name]
    for name in ("pixel_auroc", "pixel_ap", "pixel_aupro"):
        assert metrics[name] == pytest.approx(without[name], abs=1e-4)


def test_calibration_keeps_thresholds_beside_the_prompts(
    few_phantoms: Path, models: Path, network: dict[str, Any], tmp_path: Path
) -> None:
    prompts = tmp_path / "model.pt"
    shutil.copy(models / "model.pt", prompts)
    with pytest.raises(RuntimeError) as caught:
        evaluate(
            "anomalyclip_demo", models, few_phantoms, tmp_path / "out", prompts=str(prompts), threshold="calibrated"
        )
    assert "calibrate on a validation set" in str(caught.value.__cause__)
    evaluate("anomalyclip_demo", models, few_phantoms, tmp_path / "out", "calibrate", prompts=str(prompts))
    saved = CalibratedThresholds.load(tmp_path / "model.thresholds.json")
    assert (saved.method, saved.n) == ("best_f1", 12)

    net = AnomalyCLIP(**network).eval()
    net.load_prompts(prompts)
    entries = json.loads((few_phantoms / "datalist.json").read_text())["validation"]
    with torch.inference_mode():
        images = torch.stack([network_input(few_phantoms / entry["image"]) for entry in entries])
        scores = net.predict(images)["anomaly_score"]
    labels = [entry["image_label"] for entry in entries]
    best = max(f1_score(labels, scores >= value) for value in scores)
    assert saved.image_threshold is not None
    assert f1_score(labels, scores >= saved.image_threshold - 1e-6) == pytest.approx(best)

    results = {}
    for threshold in ("calibrated", saved.pixel_threshold):
        results[threshold] = evaluate(
            "anomalyclip_demo", models, few_phantoms, tmp_path / "out", prompts=str(prompts), threshold=threshold
        )["region_recall"]
    assert results["calibrated"] == results[saved.pixel_threshold]
    evaluate("anomalyclip_demo", models, few_phantoms, tmp_path / "out", "calibrate", prompts=str(prompts), rule="fpr")
    assert CalibratedThresholds.load(tmp_path / "model.thresholds.json").method == "fpr=0.05"
