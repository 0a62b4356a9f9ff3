# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The annotation loop, evaluation and calibration as on a GPU: nothing is mixed, and the host waits as said here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_anomalyclip.demo.phantom_sets import write_datalist
from monai_anomalyclip.demo.studies import demo_seeds, demo_volume
from monai_anomalyclip.demo.volumes import write_nifti
from monai_anomalyclip.label import AnomalyModel, tune_prompts
from monai_anomalyclip.label.model import Prediction
from monai_anomalyclip.label.prompt_tuning import TuningReport

from pretend_device import pretend_device  # isort: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pair")
    phantom = demo_volume("brain_mr", next(iter(demo_seeds("brain_mr"))))
    return {
        "image": write_nifti(folder / "a.nii.gz", phantom.image, phantom.affine),
        "label": write_nifti(folder / "a_l.nii.gz", phantom.mask.astype(np.uint8), phantom.affine),
    }


def predict_and_tune(
    bundle: Path, folder: Path, pair: dict[str, Path], device: str, waits: Callable[[], Any] = dict
) -> tuple[list[Prediction], list[TuningReport], list[Any]]:
    """Predict, tune, predict with what was tuned, tune again."""
    model = AnomalyModel(bundle, folder)
    predictions, reports, waited = [], [], []
    for batch_size in (8, 2):
        predictions.append(model.predict(pair["image"], device=device))
        waited.append(waits())
        network, report = tune_prompts(model, [pair], device=device, max_epochs=2, batch_size=batch_size)
        waited.append(waits())
        model.save_prompts(network)
        waits()
        reports.append(report)
    return predictions, reports, waited


def test_the_annotation_loop(untuned_bundle: Callable[..., Path], pair: dict[str, Path], tmp_path: Path) -> None:
    bundle = untuned_bundle(tmp_path / "bundle")
    expected, reports, _ = predict_and_tune(bundle, tmp_path / "here", pair, "cpu")
    with pretend_device() as device:

        def waits() -> dict[str, int]:
            counted = dict(device.waits)
            device.forget()
            return counted

        found, there, waited = predict_and_tune(bundle, tmp_path / "there", pair, "cuda:0", waits)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.anomaly_map, other.anomaly_map, rtol=0, atol=1e-4)
        assert one.anomaly_score == pytest.approx(other.anomaly_score, abs=1e-4)
        assert one.slice_index == other.slice_index
        assert one.descriptor == pytest.approx(other.descriptor, abs=2e-4)
    for report, right in zip(there, reports, strict=True):
        assert (report.improved, report.slices) == (right.improved, right.slices) == (True, 10)
        assert report.loss_before == pytest.approx(right.loss_before, rel=1e-4)
        assert report.loss_after == pytest.approx(right.loss_after, rel=1e-4)
    # Of two batches one event each; at the end the features of the most suspicious slice.
    assert waited[0] == {"event": 2, "copy to the host": 1}
    # Two and five steps an epoch, two epochs: the means of each, the loss before and after, and the prompts compared
    # once for each of those and in the checkpoint. No step waits.
    assert waited[1] == waited[3] == {"copy to the host": 4, "aten.equal.default": 6}


def evaluated(bundle: Path, folder: Path, datalist: Path, names: tuple[str, ...], **ids: Any) -> dict[str, float]:
    config = [str(bundle / "configs" / f"{name}.json") for name in names]
    given = {"bundle_root": str(bundle), "dataset_dir": str(datalist.parent), "output_dir": str(folder), **ids}
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, **given)
    workflow.initialize()
    workflow.run()
    return dict(workflow.parser.get_parsed_content("validate#evaluator").state.metrics)


def test_evaluation_and_calibration(untuned_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = untuned_bundle(tmp_path / "bundle")
    datalist = write_datalist(tmp_path / "data", training=4, validation=8, testing=8, progress=False)
    for names in (("train", "evaluate"), ("train", "evaluate", "calibrate")):
        expected = evaluated(bundle, tmp_path / f"{names[-1]} here", datalist, names, device="cpu")
        with pretend_device() as device:
            found = evaluated(bundle, tmp_path / f"{names[-1]} there", datalist, names, device="cuda:0")
        assert found == pytest.approx(expected, abs=1e-4, nan_ok=True)
        assert device.kernels["aten.convolution.default"] == 1  # all images in one batch
        # Of each image its map, its mask and four numbers, which MONAI takes out of the batch; of all batches one
        # tensor with the loss, and before the first seven to check the prompts.
        copies, numbers = device.waits.pop("copy to the host"), device.waits.pop("aten._local_scalar_dense.default")
        assert copies <= 2 * 8 + 8
        assert numbers <= 4 * 8
        assert not device.waits
