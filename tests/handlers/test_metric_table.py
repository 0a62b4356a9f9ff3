# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import logging
import math
from pathlib import Path

import pytest
from ignite.engine import Engine, Events

from monai_anomalyclip.handlers import MetricTable

METRICS = {
    "image_auroc": 0.75,
    "image_auroc/hazelnut": 0.5,
    "image_auroc/a|b, c": 1.0,
    "pixel_aupro": 1 / 3,
    "pixel_aupro/hazelnut": 1 / 3,
    "pixel_aupro/a|b, c": math.nan,
    "recall/below 5 px": 0.1,
}


def write(folder: Path, names: list[str], metrics: dict[str, float] = METRICS) -> None:
    engine = Engine(lambda _, batch: batch)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(metrics))
    MetricTable(folder, names).attach(engine)
    engine.run([0])


def test_rows_are_classes_and_columns_metrics(tmp_path: Path) -> None:
    write(tmp_path / "new", ["image_auroc", "pixel_aupro"])
    with (tmp_path / "new" / "metrics_per_class.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["class", "image_auroc", "pixel_aupro"],
        ["a|b, c", "1.0", "nan"],
        ["hazelnut", "0.5", repr(1 / 3)],
        ["mean", "0.75", repr(1 / 3)],
    ]
    assert (tmp_path / "new" / "metrics_per_class.md").read_text() == (
        "| class | image_auroc | pixel_aupro |\n"
        "|---|---|---|\n"
        "| a\\|b, c | 100.0 | undefined |\n"
        "| hazelnut | 50.0 | 33.3 |\n"
        "| mean | 75.0 | 33.3 |\n"
    )
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_intervals_and_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ends = {"low/hazelnut": 0.4, "high/hazelnut": 0.625, "low": 0.7, "high": 0.8}
    metrics = {**METRICS, **{f"image_auroc_{key}": value for key, value in ends.items()}, "loss_global": 1 / 3}
    with caplog.at_level(logging.INFO, logger="monai_anomalyclip"):
        write(tmp_path, ["image_auroc", "pixel_aupro"], metrics)
    with (tmp_path / "metrics_per_class.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["class", "image_auroc", "image_auroc_low", "image_auroc_high", "pixel_aupro"]
    assert rows[1] == ["a|b, c", "1.0", "nan", "nan", "nan"]
    assert rows[2] == ["hazelnut", "0.5", "0.4", "0.625", repr(1 / 3)]
    assert rows[3] == ["mean", "0.75", "0.7", "0.8", repr(1 / 3)]
    table = (tmp_path / "metrics_per_class.md").read_text()
    assert "| a\\|b, c | 100.0 | undefined |\n| hazelnut | 50.0 (40.0 to 62.5) | 33.3 |\n" in table
    assert "| mean | 75.0 (70.0 to 80.0) | 33.3 |\n" in table
    # Ignite's own lines come along where another test has opened its logger.
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("monai_anomalyclip")]
    assert ours == [
        f"Metrics in per cent:\n{table.rstrip()}",
        "Further metrics: recall/below 5 px 0.1, loss_global 0.3333",
    ]


def test_metrics_without_classes(tmp_path: Path) -> None:
    write(tmp_path, ["image_auroc"], {"image_auroc": 0.5})
    assert (tmp_path / "metrics_per_class.csv").read_text() == "class,image_auroc\nall,0.5\n"


def test_unknown_metric(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no metric 'image_f1'"):
        write(tmp_path, ["image_f1"])


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    write(tmp_path, ["image_auroc"])
    assert not list(tmp_path.iterdir())
