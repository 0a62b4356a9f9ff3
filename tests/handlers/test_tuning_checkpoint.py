# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, DistributedSampler
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ROCAUC, ValidationHandler, from_engine
from monai.transforms import Compose, FlattenSubKeysd
from torch import Tensor

from monai_anomalyclip.engines import PrepareAnomalyBatch
from monai_anomalyclip.handlers import TuningCheckpoint, tuning_is_finished
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP

pytestmark = pytest.mark.filterwarnings("ignore:CLIP 'custom' has random weights")

SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
    "quick_gelu": True,
}
STEPS = 3
EPOCHS = 4
State = dict[str, Tensor]


class Killed(Exception):
    """Stands for a signal that ends the process."""


def small_network(seed: int) -> AnomalyCLIP:
    """Prompts of another start for each seed; the same backbone for all."""
    torch.manual_seed(0)
    network = AnomalyCLIP(
        SMALL_CLIP, None, image_size=28, feature_layers=(1, 2), dpam_start=1, deep_prompt_depth=2, prompt_length=4
    )
    torch.manual_seed(seed)
    for parameter in network.prompts.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def features(count: int = 2 * STEPS) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    return Dataset(
        [
            {
                "global_features": torch.randn(16, generator=generator),
                "patch_features": torch.randn(2, 5, 16, generator=generator),
                "label": (torch.rand(1, 28, 28, generator=generator) > 0.5).float(),
                "image_label": index % 2,
                "has_label": 1,
            }
            for index in range(count)
        ]
    )


class Run:
    """One process that tunes: everything is built anew, only the folder is shared.

    Args:
        folder: output of the run.
        metrics: key metric of the "validator" after each epoch, from the first one on.
        kill_at: step (counted over all epochs) at whose end the process dies.
        seed: of the prompts that the process starts from.
        options: of TuningCheckpoint.
    """

    def __init__(
        self,
        folder: Path,
        *,
        epochs: int = EPOCHS,
        metrics: Sequence[float] | None = None,
        kill_at: int | None = None,
        seed: int = 7,
        count: int = 2 * STEPS,
        on_step: Callable[[Engine], None] | None = None,
        **options: Any,
    ) -> None:
        self.network = small_network(seed)
        optimizer = torch.optim.Adam(self.network.prompts.parameters(), 1e-2, betas=(0.5, 0.999))
        self.losses: dict[int, float] = {}
        self.epochs: dict[int, State] = {}
        validator: Any = SimpleNamespace(state=SimpleNamespace(metrics={}, key_metric_name="auroc"))
        if metrics is not None:
            options = {"validator": validator, "best_path": folder / "models" / "model_best.pt", **options}
        self.checkpoint = TuningCheckpoint(
            self.network,
            optimizer,
            **{"checkpoint_dir": folder / "checkpoints", "final_path": folder / "models" / "model.pt", **options},
        )
        dataset = features(count)
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(
                dataset,
                batch_size=2,
                sampler=DistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=3),
            ),
            network=self.network,
            optimizer=optimizer,
            loss_function=GlocalLoss(),
            prepare_batch=PrepareAnomalyBatch("logits"),
            decollate=False,
        )

        def step(engine: Engine) -> None:
            self.losses[engine.state.iteration] = engine.state.output["loss"].item()
            if engine.state.iteration == kill_at:
                raise Killed
            if on_step is not None:
                on_step(engine)

        def validate(engine: Engine) -> None:
            self.epochs[engine.state.epoch] = copied(self.network.state_dict())
            if metrics is not None:
                validator.state.metrics["auroc"] = metrics[engine.state.epoch - 1]

        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, step)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
        self.checkpoint.attach(self.trainer)

    def run(self) -> Run:
        self.trainer.run()
        return self


def copied(state: State) -> State:
    return {name: value.detach().clone() for name, value in state.items()}


def saved(path: Path) -> State:
    state: State = torch.load(path, weights_only=True)
    return state


def equal(first: State, second: State) -> bool:
    return set(first) == set(second) and all(torch.equal(value, second[name]) for name, value in first.items())


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def checkpoints(*epochs: int) -> list[str]:
    return [f"checkpoints/checkpoint_epoch={epoch}.pt" for epoch in epochs]


def test_files_of_a_whole_run(tmp_path: Path) -> None:
    run = Run(tmp_path, metrics=[0.5, 0.8, 0.6, 0.8]).run()
    assert files(tmp_path) == [*checkpoints(1, 2, 3, 4), "models/model.pt", "models/model_best.pt"]
    assert equal(saved(tmp_path / "models/model.pt"), run.network.state_dict())
    assert equal(saved(tmp_path / "models/model.pt"), run.epochs[4])
    assert equal(saved(tmp_path / "models/model_best.pt"), run.epochs[2])  # the first of the equally good ones
    assert not equal(run.epochs[2], run.epochs[4])
    for epoch in run.epochs:
        state = torch.load(tmp_path / checkpoints(epoch)[0], weights_only=True)
        assert equal(state["model"], run.epochs[epoch])


@pytest.mark.parametrize("kill_at", [1, STEPS, 2 * STEPS + 1, 2 * STEPS + 2, EPOCHS * STEPS])
def test_killed_and_resumed_equals_uninterrupted(kill_at: int, tmp_path: Path) -> None:
    metrics = [0.5, 0.6, 0.9, 0.7]
    whole = Run(tmp_path / "whole", metrics=metrics).run()
    killed = Run(tmp_path / "killed", metrics=metrics, kill_at=kill_at)
    with pytest.raises(Killed):
        killed.run()
    done = (kill_at - 1) // STEPS  # a kill in the last step of an epoch comes before its checkpoint
    assert [name for name in files(tmp_path / "killed") if "epoch" in name] == checkpoints(*range(1, done + 1))
    assert not (tmp_path / "killed" / "models" / "model.pt").exists()
    # Without a checkpoint the resumed process starts anew, from its own prompts.
    resumed = Run(tmp_path / "killed", metrics=metrics, seed=99 if done else 7).run()
    assert sorted(resumed.losses) == list(range(done * STEPS + 1, EPOCHS * STEPS + 1))
    assert {**killed.losses, **resumed.losses} == whole.losses
    assert equal(resumed.network.state_dict(), whole.network.state_dict())
    for name in ("model.pt", "model_best.pt"):
        assert equal(saved(tmp_path / "killed" / "models" / name), saved(tmp_path / "whole" / "models" / name))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_more_epochs_later_equal_all_at_once(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole").run()
    first = Run(tmp_path / "parts", epochs=2).run()
    second = Run(tmp_path / "parts", seed=99).run()
    assert {**first.losses, **second.losses} == whole.losses
    assert equal(saved(tmp_path / "parts/models/model.pt"), saved(tmp_path / "whole/models/model.pt"))


def test_tenth_epoch_is_newer_than_the_ninth(tmp_path: Path) -> None:
    Run(tmp_path, epochs=10).run()
    resumed = Run(tmp_path, epochs=11, seed=99).run()
    assert sorted(resumed.losses) == list(range(10 * STEPS + 1, 11 * STEPS + 1))


def test_worse_metric_after_the_resume_keeps_the_best(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Run(tmp_path, metrics=[0.5, 0.9], kill_at=2 * STEPS + 1).run()
    best = saved(tmp_path / "models/model_best.pt")
    resumed = Run(tmp_path, metrics=[0, 0, 0.8, 0.85]).run()
    assert resumed.checkpoint.best_metric == 0.9
    assert equal(saved(tmp_path / "models/model_best.pt"), best)


def test_better_metric_after_the_resume_is_the_best(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        Run(tmp_path, metrics=[0.5, 0.9], kill_at=2 * STEPS + 1).run()
    resumed = Run(tmp_path, metrics=[0, 0, 0.95, 0.93]).run()
    assert equal(saved(tmp_path / "models/model_best.pt"), resumed.epochs[3])


def test_undefined_metric_is_never_the_best(tmp_path: Path) -> None:
    run = Run(tmp_path / "some", metrics=[math.nan, 0.4, math.nan, 0.3]).run()
    assert equal(saved(tmp_path / "some/models/model_best.pt"), run.epochs[2])
    Run(tmp_path / "none", metrics=[math.nan] * EPOCHS).run()
    assert files(tmp_path / "none" / "models") == ["model.pt"]


def test_without_a_validator_there_is_no_best(tmp_path: Path) -> None:
    Run(tmp_path / "path", best_path=tmp_path / "path/models/model_best.pt").run()
    assert files(tmp_path / "path" / "models") == ["model.pt"]
    validator = SimpleNamespace(state=SimpleNamespace(metrics={}, key_metric_name=None))
    Run(tmp_path / "unnamed", best_path=tmp_path / "unnamed/models/model_best.pt", validator=validator).run()
    assert files(tmp_path / "unnamed" / "models") == ["model.pt"]


def test_metric_of_monais_evaluator(tmp_path: Path) -> None:
    run = Run(tmp_path)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(features(8), batch_size=4),
        network=run.network,
        prepare_batch=PrepareAnomalyBatch("prediction"),
        postprocessing=Compose([FlattenSubKeysd("pred", prefix="pred"), FlattenSubKeysd("label", prefix="label")]),
        key_val_metric={"auroc": ROCAUC(output_transform=from_engine(["pred_anomaly_score", "label_image_label"]))},
    )
    seen: dict[int, float] = {}
    ValidationHandler(1, evaluator).attach(run.trainer)
    checkpoint = TuningCheckpoint(
        run.network, run.trainer.optimizer, tmp_path / "other", tmp_path / "m.pt", tmp_path / "best.pt", evaluator
    )
    checkpoint.attach(run.trainer)
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: seen.update({engine.state.epoch: evaluator.state.metrics["auroc"]})
    )
    run.run()
    best = max(seen, key=lambda epoch: (seen[epoch], -epoch))
    assert checkpoint.best_metric == pytest.approx(seen[best])
    assert equal(saved(tmp_path / "best.pt"), run.epochs[best])


def test_finished_run_only_restores_the_final_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Run(tmp_path, metrics=[0.5] * EPOCHS).run()
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    final = tmp_path / "models/model.pt"
    final.unlink()
    with caplog.at_level("INFO"):
        again = Run(tmp_path, metrics=[0.9] * EPOCHS, seed=99).run()
    assert again.losses == {}
    assert tuning_is_finished(tmp_path / "checkpoints", EPOCHS)
    assert not tuning_is_finished(tmp_path / "checkpoints", EPOCHS, resume=False)
    assert not tuning_is_finished(tmp_path / "checkpoints", EPOCHS + 1)
    assert f"All {EPOCHS} epochs are done already" in caplog.text
    assert equal(saved(final), first.network.state_dict())
    after = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    assert set(after) == set(before)
    assert [name for name in before if before[name] != after[name]] == ["models/model.pt"]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    settings = {"seed": 1, "batch_size": 2, "learning_rate": 0.01, "note": None, "layers": [1, 2]}
    Run(tmp_path, epochs=1, run_settings=settings).run()
    Run(tmp_path, epochs=2, run_settings=dict(reversed(settings.items()))).run()
    for other, named in (
        ({**settings, "seed": 2, "batch_size": 4}, r"\(batch_size, seed\)"),
        ({**settings, "images": 9}, r"\(images\)"),
        ({"seed": 1, "batch_size": 2, "note": None, "layers": [1, 2]}, r"\(learning_rate\)"),
        (None, r"\(.*learning_rate.*\)"),
    ):
        run = Run(tmp_path, run_settings=other)
        with pytest.raises(
            ValueError, match=rf"checkpoint_epoch=2\.pt' belongs to .* other settings {named}.*--resume"
        ):
            run.run()
        assert run.losses == {}
    assert files(tmp_path) == [*checkpoints(1, 2), "models/model.pt"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("dpam_attention", r"\(dpam_attention\)"),
        ("abnormal_words", r"\(abnormal_words\)"),
        ("backbone", r"\(backbone\)"),
    ],
)
def test_prompts_of_another_network_are_not_gone_on_with(changed: str, named: str, tmp_path: Path) -> None:
    Run(tmp_path).run()
    other = small_network(7)
    if changed == "backbone":
        other.backbone_sha256 = "0" * 64
    else:
        other.settings[changed] = "other"
    optimizer = torch.optim.Adam(other.prompts.parameters())
    checkpoint = TuningCheckpoint(other, optimizer, tmp_path / "checkpoints", tmp_path / "models" / "model.pt")
    engine = Engine(lambda *_: None)
    checkpoint.attach(engine)
    with pytest.raises(ValueError, match=f"other settings {named}"):
        engine.run([0] * STEPS, max_epochs=EPOCHS)


@pytest.mark.parametrize("value", [Path("x"), torch.zeros(1), object()], ids=lambda value: type(value).__name__)
def test_settings_that_could_not_be_read_back_are_refused_at_once(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Run(tmp_path, run_settings={"seed": 1, "value": value})


def test_fewer_epochs_than_done_are_refused(tmp_path: Path) -> None:
    Run(tmp_path, epochs=3).run()
    with pytest.raises(ValueError, match="3 epochs old, more than max_epochs=2"):
        Run(tmp_path, epochs=2).run()


@pytest.mark.parametrize("count", [2 * STEPS + 2, 2 * STEPS - 2])
def test_another_number_of_steps_per_epoch_is_refused(count: int, tmp_path: Path) -> None:
    """Otherwise the first resumed epoch would begin in its middle."""
    Run(tmp_path, epochs=2).run()
    with pytest.raises(ValueError, match="belongs to a tuning run with other settings"):
        Run(tmp_path, count=count).run()


def test_starting_anew_removes_the_old_checkpoints(tmp_path: Path) -> None:
    Run(tmp_path).run()
    other = tmp_path / "checkpoints" / "notes.txt"
    other.write_text("mine")
    with pytest.raises(Killed):
        Run(tmp_path, seed=8, resume=False, kill_at=STEPS + 1).run()
    assert [name for name in files(tmp_path) if "epoch" in name] == checkpoints(1)
    assert other.read_text() == "mine"
    anew = Run(tmp_path, seed=8, resume=False, run_settings={"seed": 2}).run()  # other settings are no hindrance
    assert sorted(anew.losses) == list(range(1, EPOCHS * STEPS + 1))
    assert equal(saved(tmp_path / "models/model.pt"), anew.network.state_dict())


def test_best_prompts_of_the_run_before_do_not_survive_a_new_start(tmp_path: Path) -> None:
    Run(tmp_path, metrics=[0.9] * EPOCHS).run()
    Run(tmp_path, metrics=[math.nan] * EPOCHS, resume=False).run()
    assert files(tmp_path / "models") == ["model.pt"]
    Run(tmp_path, metrics=[0.9, 0.1, 0.1, 0.1], resume=False).run()
    anew = Run(tmp_path, metrics=[0.1, 0.2, 0.1, 0.1], seed=8, resume=False).run()
    assert equal(saved(tmp_path / "models/model_best.pt"), anew.epochs[2])


def test_half_written_files_do_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = [0.5, 0.6, 0.7, 0.8]
    whole = Run(tmp_path / "whole", metrics=metrics).run()
    folder = tmp_path / "full"
    Run(folder, epochs=1, metrics=metrics).run()
    before = {name: (folder / name).read_bytes() for name in files(folder)}

    def disk_full(content: object, stream: Any, *args: Any, **kwargs: Any) -> None:
        stream.write(pickle.dumps("half a checkpoint"))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", disk_full)
        with pytest.raises(OSError, match="No space left"):
            Run(folder, metrics=metrics).run()
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before
    assert sorted(path.name for path in folder.rglob(".*")) == []
    resumed = Run(folder, metrics=metrics, seed=99).run()
    assert equal(resumed.network.state_dict(), whole.network.state_dict())


def test_kill_between_best_and_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = [0.5, 0.9, 0.6, 0.7]
    whole = Run(tmp_path / "whole", metrics=metrics).run()
    save = torch.save

    def killed(content: Any, path: Path) -> None:
        if "checkpoint_epoch=2" in path.name:
            raise Killed
        save(content, path)

    folder = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(Killed):
            Run(folder, metrics=metrics).run()
    assert files(folder) == [*checkpoints(1), "models/model_best.pt"]
    Run(folder, metrics=metrics, seed=99).run()
    for name in ("model.pt", "model_best.pt"):
        assert equal(saved(folder / "models" / name), saved(tmp_path / "whole" / "models" / name))
    assert equal(saved(folder / "models/model_best.pt"), whole.epochs[2])


@pytest.mark.parametrize("unwritable", ["checkpoints", "models"])
def test_folder_without_permission(unwritable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != unwritable and access(path, mode))
    run = Run(tmp_path)
    with pytest.raises(PermissionError, match=rf"no write permission in '.*{unwritable}'.*--output_dir"):
        run.run()
    assert run.losses == {}
    assert files(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut off"])
def test_damaged_checkpoint(content: bytes, tmp_path: Path) -> None:
    Run(tmp_path, epochs=1).run()
    (tmp_path / "checkpoints" / "checkpoint_epoch=2.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint_epoch=2\.pt"):
        Run(tmp_path).run()


def test_foreign_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save({"weights": torch.zeros(1)}, tmp_path / "checkpoints" / "checkpoint_epoch=2.pt")
    with pytest.raises(ValueError, match=r"checkpoint_epoch=2\.pt"):
        Run(tmp_path).run()


def test_pickled_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (tmp_path / "checkpoints").mkdir()
    torch.save({"run_settings": {}, "model": Bomb()}, tmp_path / "checkpoints" / "checkpoint_epoch=1.pt")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        Run(tmp_path).run()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("step", [EPOCHS * STEPS - 1, 2 * STEPS + 1])
def test_run_that_was_broken_off_has_no_final_file(step: int, tmp_path: Path) -> None:
    """E.g. by ignite's TerminateOnNan; the engine then counts the epoch it was in, and still says "completed"."""

    def stop(engine: Engine) -> None:
        if engine.state.iteration == step:
            engine.terminate()

    Run(tmp_path, on_step=stop).run()
    assert files(tmp_path) == checkpoints(*range(1, (step - 1) // STEPS + 1))
    whole = Run(tmp_path / "whole").run()
    resumed = Run(tmp_path, seed=99).run()
    assert equal(resumed.network.state_dict(), whole.network.state_dict())


def test_final_prompts_load_into_another_network(tmp_path: Path) -> None:
    tuned = Run(tmp_path, metrics=[0.5] * EPOCHS).run().network
    for name in ("model.pt", "model_best.pt"):
        state = saved(tmp_path / "models" / name)
        assert not [key for key in state if key.startswith("clip.")]
        by_file, by_state = small_network(11), small_network(12)
        by_file.load_prompts(tmp_path / "models" / name)
        by_state.load_state_dict(state)
        assert equal(by_file.state_dict(), state)
        assert equal(by_state.state_dict(), state)
    final = small_network(11)
    final.load_prompts(tmp_path / "models/model.pt")
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(final(image), tuned(image))


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_anomalyclip.handlers.tuning_checkpoint._is_first_process", lambda: False)
    Run(tmp_path, metrics=[0.5] * EPOCHS).run()
    assert files(tmp_path) == []


@pytest.mark.parametrize("way", ["load_state_dict", "same values", "copy", "file"])
def test_prompts_from_outside_win_over_a_checkpoint(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site, aggregate = Run(tmp_path / "site", metrics=[0.5] * EPOCHS).run(), small_network(3)
    expected = Run(tmp_path / "fresh", seed=3).run()
    anew = Run(tmp_path / "site", metrics=[0.4] * EPOCHS, seed=3 if way == "same values" else 99)
    if way == "copy":
        for parameter, source in zip(anew.network.prompts.parameters(), aggregate.prompts.parameters(), strict=True):
            parameter.data.copy_(source.data)
    elif way == "file":
        aggregate.save_prompts(tmp_path / "aggregate.safetensors")
        anew.network.load_prompts(tmp_path / "aggregate.safetensors")
    else:
        anew.network.load_state_dict(aggregate.state_dict())
    with caplog.at_level("INFO"):
        anew.run()
    assert "The prompts come from outside" in caplog.text
    assert anew.losses == expected.losses != site.losses
    assert equal(saved(tmp_path / "site/models/model.pt"), expected.network.state_dict())
    assert anew.checkpoint.best_metric == 0.4  # the best prompts are those of this course, too
    assert equal(saved(tmp_path / "site/models/model_best.pt"), anew.epochs[1])
    again = Run(tmp_path / "site", seed=99, epochs=EPOCHS + 1)
    again.run()
    assert sorted(again.losses) == list(range(EPOCHS * STEPS + 1, (EPOCHS + 1) * STEPS + 1))  # resumed as ever


def test_second_run_of_one_trainer_goes_on_from_what_it_is_handed(tmp_path: Path) -> None:
    run = Run(tmp_path, epochs=1, metrics=[0.9, 0.1]).run()
    first = copied(run.network.state_dict())
    handed = small_network(3).state_dict()
    seen: list[State] = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda _: seen.append(copied(run.network.state_dict())))
    run.network.load_state_dict(handed)
    run.trainer.state.max_epochs = 2
    run.trainer.run()
    assert equal(seen[0], handed)
    assert sorted(run.losses) == list(range(1, 2 * STEPS + 1))
    assert run.checkpoint.best_metric == 0.9
    assert equal(saved(tmp_path / "models/model_best.pt"), first)


def test_copies_of_the_network_are_none_of_the_handlers_business(tmp_path: Path) -> None:
    Run(tmp_path, epochs=2).run()
    resumed = Run(tmp_path, seed=99)
    copy.deepcopy(resumed.network).load_state_dict(small_network(3).state_dict())
    pickle.dumps(resumed.checkpoint._loads)  # a network with its hooks goes to the workers of a data loader
    resumed.run()
    assert sorted(resumed.losses) == list(range(2 * STEPS + 1, EPOCHS * STEPS + 1))


def test_repeated_finished_run_writes_the_same_bytes(tmp_path: Path) -> None:
    Run(tmp_path).run()
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    Run(tmp_path, seed=99).run()
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    Run(tmp_path / "other").run()
    assert (tmp_path / "other/models/model.pt").read_bytes() == before["models/model.pt"]


def test_without_a_folder_only_the_final_prompts_are_written_and_nothing_is_resumed(tmp_path: Path) -> None:
    first = Run(tmp_path, checkpoint_dir=None, metrics=[0.5, 0.8, 0.6, 0.8], best_path=None).run()
    assert files(tmp_path) == ["models/model.pt"]
    second = Run(tmp_path, checkpoint_dir=None).run()
    assert sorted(second.losses) == sorted(first.losses)  # every step was done again
