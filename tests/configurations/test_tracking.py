# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Tuning under MLflow, in a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

from monai_anomalyclip.demo.phantom_sets import write_datalist

REPOSITORY = Path(__file__).parents[2]


def test_a_tuning_run_is_recorded(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("alembic", reason="only mlflow-skinny is installed, which has no SQLite store")
    write_datalist(tmp_path / "data", training=16, validation=12, testing=8, progress=False)
    bundle = REPOSITORY / "bundles" / "anomalyclip_demo"
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        tracking=str(REPOSITORY / "configs" / "tracking" / "mlflow.json"),
        bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "data"),
        output_dir=str(tmp_path / "runs"),
        model_dir=str(tmp_path / "models"),
        max_epochs=2,
        device="$torch.device('cpu')",
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlruns.db")
    experiment = client.get_experiment_by_name("anomalyclip")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert {"train_loss", "image_auroc", "pixel_auroc"} <= set(run.data.metrics)
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    assert run.data.metrics["image_auroc"] == pytest.approx(evaluator.state.metrics["image_auroc"])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train_loss")][-1] == 4
