# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a tuning run that a killed run can be resumed from with the same result."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import Tensor

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.networks import AnomalyCLIP
from monai_anomalyclip.networks.prompt_checkpoint import save_tensors

__all__ = ["TuningCheckpoint", "tuning_is_finished"]

logger = logging.getLogger(__name__)


class TuningCheckpoint:
    """Saves prompts, optimiser and position after each epoch, resumes from the newest, and keeps the best and the
    final prompts.

    By hand, because MONAI 1.6.1's CheckpointSaver keeps the best metric in the best epoch's file alone, not in the
    newest one, from which a run is resumed, and leaves half a file when it is killed. This handler is attached on every
    process: all of them resume, the first one writes. Files appear under their names only when they are complete.

    Written: ``checkpoint_dir/checkpoint_epoch=N.pt`` for each epoch; ``best_path`` whenever the validation's key
    metric rises; ``final_path`` when all epochs are done. The last two are bare state dicts of the prompts, as MONAI
    bundles have them.

    Prompts that were put into the network after this handler was made, or between two runs of the trainer, win over a
    checkpoint: so a client of federated learning (MONAI's ``MonaiAlgo``) goes on from the aggregate that it was sent.
    Checkpoints of an earlier process then count as with ``resume=False``.

    Args:
        network: whose prompts are tuned.
        optimizer: of the trainer.
        checkpoint_dir: folder of the checkpoints; None for none, and nothing to resume from.
        final_path: file of the prompts after the last epoch, e.g. ``models/model.pt``.
        best_path: file of the prompts with the best key metric of ``validator``.
        validator: evaluator that has run before this handler at the end of an epoch.
        resume: whether to go on from the newest checkpoint; if not, those that exist and the best prompts are removed.
        run_settings: plain values (seed, batch size, digest of the data, ...) that a checkpoint must share to be
            resumed from, besides the network's own settings and its backbone.

    Raises:
        TypeError: when ``run_settings`` holds other than plain values.
        PermissionError: when ``checkpoint_dir`` cannot be written.

    Example::

        TuningCheckpoint(network, optimizer, "runs/checkpoints", "models/model.pt").attach(trainer)
    """

    def __init__(
        self,
        network: AnomalyCLIP,
        optimizer: torch.optim.Optimizer,
        checkpoint_dir: str | Path | None,
        final_path: str | Path,
        best_path: str | Path | None = None,
        validator: Evaluator | None = None,
        resume: bool = True,
        run_settings: dict[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.checkpoint_dir = None if checkpoint_dir is None else Path(checkpoint_dir)
        self.final_path = Path(final_path)
        self.best_path = None if best_path is None else Path(best_path)
        self.validator = validator
        self.resume = resume
        # Written and read as JSON: what is no plain value could not be read back, and better fails now.
        self.run_settings = json.loads(json.dumps({**_identity(network), **(run_settings or {})}))
        self.best_metric = -math.inf
        self._own_prompts = _copied(network)
        self._loads = _LoadCount()
        network.register_load_state_dict_post_hook(self._loads)  # type: ignore[no-untyped-call]

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that validates."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._remember)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_epoch)
        engine.add_event_handler(Events.COMPLETED, self._save_final)

    def _start(self, engine: Engine) -> None:
        folders = {path.parent for path in (self.final_path, self.best_path) if path}
        for folder in folders | ({self.checkpoint_dir} if self.checkpoint_dir else set()):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(
                    f"Prompts cannot be saved: no write permission in '{folder}'; give another --output_dir."
                )
        checkpoints: list[Path] = []
        if self.checkpoint_dir:
            checkpoints = sorted(self.checkpoint_dir.glob("checkpoint_epoch=[0-9]*.pt"), key=_epoch_of)
        handed_in = self._are_handed_in()
        self._remember(engine)
        if handed_in and engine.state.iteration:
            logger.info("Tuning starts from the given prompts.")
        elif handed_in or not self.resume:
            if handed_in:
                logger.info("The prompts come from outside: tuning begins with them, not with a checkpoint.")
            if _is_first_process():
                for path in [*checkpoints, *([self.best_path] if self.best_path else [])]:
                    path.unlink(missing_ok=True)
        elif checkpoints:
            self._load(engine, checkpoints[-1])

    def _are_handed_in(self) -> bool:
        """Whether the prompts were loaded by somebody else, or are not those that this run knows."""
        own, present = self._own_prompts, self.network.state_dict()
        handed_in = self._loads.count > 0 or any(not torch.equal(present[name], own[name]) for name in own)
        return bool(idist.broadcast(float(handed_in)))  # the first process, whose prompts all get, decides

    def _remember(self, _: Engine) -> None:
        self._own_prompts = _copied(self.network)
        self._loads.count = 0

    def _load(self, engine: Engine, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            settings, position = state["run_settings"], state["trainer"]
            epoch = position["iteration"] // position["epoch_length"]
        except Exception as error:  # torch has many errors for a damaged or foreign file
            raise ValueError(
                f"'{path}' is not a checkpoint of a tuning run ({type(error).__name__}); remove it, or give "
                "--resume False."
            ) from error
        settings = {**settings, "batches per epoch": position["epoch_length"]}
        own = {**self.run_settings, "batches per epoch": engine.state.epoch_length}
        if settings != own:
            differing = [key for key in {**settings, **own} if settings.get(key, ...) != own.get(key, ...)]
            raise ValueError(
                f"'{path}' belongs to a tuning run with other settings ({', '.join(differing)}); give another "
                "--output_dir, or --resume False to start again."
            )
        if epoch > engine.state.max_epochs:
            raise ValueError(f"'{path}' is {epoch} epochs old, more than max_epochs={engine.state.max_epochs}.")
        self.network.load_state_dict(state["model"])
        self._remember(engine)
        self.optimizer.load_state_dict(state["optimizer"])
        engine.state.iteration, engine.state.epoch = position["iteration"], epoch
        self.best_metric = state["best_metric"]
        if epoch == engine.state.max_epochs:
            logger.info(f"All {epoch} epochs are done already; give --resume False to tune again.")
        else:
            logger.info(f"Resuming after epoch {epoch} of {engine.state.max_epochs}.")

    def _save_epoch(self, engine: Engine) -> None:
        if not _is_first_process():
            return
        model = self.network.state_dict()
        if self.validator is not None and self.best_path is not None:
            metric = self.validator.state.metrics.get(self.validator.state.key_metric_name, math.nan)
            # An undefined metric (NaN, e.g. a validation set of one class) is never the best.
            if metric > self.best_metric:
                self.best_metric = float(metric)
                _save(model, self.best_path)
        if self.checkpoint_dir is None:
            return
        state = {
            "model": model,
            "optimizer": self.optimizer.state_dict(),
            "trainer": {"iteration": engine.state.iteration, "epoch_length": engine.state.epoch_length},
            "best_metric": self.best_metric,
            "run_settings": self.run_settings,
        }
        _save(state, _checkpoint(self.checkpoint_dir, engine.state.epoch))

    def _save_final(self, engine: Engine) -> None:
        # Also when nothing was left to do: the file may have been lost.
        # Counted in iterations, because a run that is broken off also ends with this event.
        done = engine.state.iteration == engine.state.max_epochs * engine.state.epoch_length
        if _is_first_process() and done:
            _save(self.network.state_dict(), self.final_path)
            logger.info(f"Prompts after epoch {engine.state.epoch}: {self.final_path}")


def _copied(network: AnomalyCLIP) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


class _LoadCount:
    """Counts how often a state dict was loaded into a network. A copy of the network gets a count of its own."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: object) -> None:
        self.count += 1


def _identity(network: AnomalyCLIP) -> dict[str, Any]:
    """The network's settings, and its backbone by the weights instead of by where they lie."""
    settings = {key: value for key, value in network.settings.items() if key not in ("model_name", "pretrained")}
    return {"backbone": network.backbone_sha256, **settings}


def tuning_is_finished(checkpoint_dir: str | Path, max_epochs: int, resume: bool = True) -> bool:
    """Whether a run would find all its epochs done, so that no image needs to be encoded for it.

    Args:
        checkpoint_dir: of :class:`TuningCheckpoint`.
        max_epochs: of the run.
        resume: of :class:`TuningCheckpoint`.
    """
    return resume and _checkpoint(Path(checkpoint_dir), max_epochs).is_file()


def _checkpoint(folder: Path, epoch: int) -> Path:
    return folder / f"checkpoint_epoch={epoch}.pt"


def _epoch_of(path: Path) -> int:
    digits = path.stem.rpartition("=")[2]
    return int(digits) if digits.isdigit() else -1


def _is_first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _save(content: object, path: Path) -> None:
    with replaced_when_complete(path) as unfinished:
        save_tensors(content, unfinished)
