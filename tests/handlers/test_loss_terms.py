# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from monai_anomalyclip.handlers import GlocalLossHandler
from monai_anomalyclip.losses import GlocalLoss, Logits

TERMS = ("global", "focal", "dice_abnormal", "dice_normal", "total")
EPOCHS = 3


def batches() -> list[tuple[Logits, dict[str, torch.Tensor]]]:
    """Five batches, the last one smaller, with one image of unknown mask."""
    made = []
    for size in (3, 3, 3, 3, 1):
        logits: Logits = {
            "image_logits": torch.randn(size, 2),
            "patch_logits": [torch.randn(size, 2, 4, 4) for _ in range(2)],
        }
        label = (torch.rand(size, 1, 8, 8) > 0.6).float()
        target = {"image_label": torch.ones(size), "label": label, "has_label": (torch.arange(size) != 1).float()}
        made.append((logits, target))
    return made


def single_terms(batch: tuple[Logits, dict[str, torch.Tensor]], scale: float) -> dict[str, float]:
    loss = GlocalLoss(2.0)
    total = loss(scaled(batch[0], scale), batch[1])
    assert float(total) == float(loss.last_terms["total"])
    return {name: float(loss.last_terms[name]) for name in TERMS}


def scaled(logits: Logits, scale: float) -> Logits:
    return {
        "image_logits": scale * logits["image_logits"],
        "patch_logits": [scale * x for x in logits["patch_logits"]],
    }


def run(handler: GlocalLossHandler, loss: GlocalLoss, data: Any) -> list[dict[str, float]]:
    """A trainer whose logits grow from epoch to epoch; returns the handler's means after each."""
    reported: list[dict[str, float]] = []
    trainer = Engine(lambda engine, batch: loss(scaled(batch[0], engine.state.epoch), batch[1]))
    handler.attach(trainer)

    class Late:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: reported.append(dict(handler.epoch_means)))

    Late().attach(trainer)
    trainer.run(data, max_epochs=EPOCHS)
    return reported


def expected_means(data: list[tuple[Logits, dict[str, torch.Tensor]]]) -> list[dict[str, float]]:
    means = []
    for epoch in range(1, EPOCHS + 1):
        terms = [single_terms(batch, epoch) for batch in data]
        means.append({name: sum(term[name] for term in terms) / len(terms) for name in TERMS})
    return means


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_means_over_the_steps_of_each_epoch(tmp_path: Path) -> None:
    data, loss = batches(), GlocalLoss(2.0)
    reported = run(GlocalLossHandler(loss, log_dir=str(tmp_path)), loss, data)
    expected = expected_means(data)
    assert len(reported) == EPOCHS
    for means, wanted in zip(reported, expected, strict=True):
        assert means == pytest.approx(wanted, rel=1e-5)
        assert means["total"] == pytest.approx(
            means["global"] + 2 * (means["focal"] + means["dice_abnormal"] + means["dice_normal"]), rel=1e-5
        )
    assert expected[0]["global"] != pytest.approx(expected[1]["global"], rel=1e-2)


@pytest.mark.parametrize("own_writer", [True, False])
def test_each_term_has_its_own_curve(own_writer: bool, tmp_path: Path) -> None:
    data, loss = batches(), GlocalLoss(2.0)
    if own_writer:
        run(GlocalLossHandler(loss, log_dir=str(tmp_path)), loss, data)
    else:
        with SummaryWriter(str(tmp_path)) as writer:
            run(GlocalLossHandler(loss, writer), loss, data)
            assert writer.file_writer is not None  # a foreign writer is left open
            writer.add_scalar("later", 1.0, 1)
    found = curves(tmp_path)
    assert ("later" in found) is not own_writer
    for name in TERMS:
        steps, values = zip(*found.pop(f"train_loss_{name}"), strict=True)
        assert steps == tuple(range(1, EPOCHS + 1))
        assert values == pytest.approx([means[name] for means in expected_means(data)], rel=1e-5)
    assert set(found) <= {"later"}


def test_prefix_of_the_curves(tmp_path: Path) -> None:
    loss = GlocalLoss()
    run(GlocalLossHandler(loss, log_dir=str(tmp_path), tag="tuning"), loss, batches())
    assert set(curves(tmp_path)) == {f"tuning_{name}" for name in TERMS}


def test_console(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, loss = batches(), GlocalLoss(2.0)
    with caplog.at_level(logging.INFO, logger="monai_anomalyclip"):
        run(GlocalLossHandler(loss, log_dir=str(tmp_path)), loss, data)
    lines = [record.message for record in caplog.records if record.name.startswith("monai_anomalyclip")]
    assert len(lines) == EPOCHS
    wanted = expected_means(data)[1]
    assert lines[1] == f"Epoch 2/{EPOCHS}, loss terms: " + ", ".join(f"{name} {wanted[name]:.4f}" for name in TERMS)


def test_epochs_without_this_loss_have_no_terms(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    handler = GlocalLossHandler(GlocalLoss(), log_dir=str(tmp_path))
    trainer = Engine(lambda *_: None)
    handler.attach(trainer)
    with caplog.at_level(logging.INFO, logger="monai_anomalyclip"):
        trainer.run([0, 1], max_epochs=2)
    assert handler.epoch_means == {}
    assert "loss terms" not in caplog.text
    assert curves(tmp_path) == {}


def test_other_processes_report_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    data, loss = batches(), GlocalLoss(2.0)
    reported = run(GlocalLossHandler(loss, log_dir=str(tmp_path)), loss, data)
    assert reported[0] == pytest.approx(expected_means(data)[0], rel=1e-5)
    assert curves(tmp_path) == {}


def test_mean_over_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one of two processes has seen terms that are three times as large."""
    monkeypatch.setattr("ignite.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("ignite.distributed.all_reduce", lambda means: means + 3 * means)
    data, loss = batches(), GlocalLoss(2.0)
    reported = run(GlocalLossHandler(loss, log_dir=str(tmp_path)), loss, data)
    for means, wanted in zip(reported, expected_means(data), strict=True):
        assert means == pytest.approx({name: 2 * value for name, value in wanted.items()}, rel=1e-5)


def test_trainer_of_monai(tmp_path: Path) -> None:
    """The logged total is the mean of the losses that MONAI's trainer reports."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, image: torch.Tensor) -> Logits:
            return {"image_logits": self.scale * image[:, :2, 0, 0], "patch_logits": [self.scale * image[:, :2]]}

    items = [
        {"image": torch.randn(3, 4, 4), "label": {"image_label": i % 2, "label": torch.ones(1, 4, 4) * (i % 2)}}
        for i in range(6)
    ]
    network, loss = Network(), GlocalLoss()
    handler = GlocalLossHandler(loss, log_dir=str(tmp_path))
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=loss,
        prepare_batch=lambda batch, *_, **__: (batch["image"], batch["label"]),
        train_handlers=[handler],
        decollate=False,
    )
    losses: dict[int, list[float]] = {1: [], 2: []}
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: losses[engine.state.epoch].append(engine.state.output["loss"].item()),
    )
    trainer.run()
    totals = [value for _, value in curves(tmp_path)["train_loss_total"]]
    assert totals == pytest.approx([sum(values) / 3 for values in losses.values()], rel=1e-5)
