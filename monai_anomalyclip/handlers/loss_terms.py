# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of the glocal loss, each on its own curve."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.handlers.tensorboard_handlers import TensorBoardHandler

from monai_anomalyclip.losses import GlocalLoss

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["GlocalLossHandler"]

logger = logging.getLogger(__name__)


class GlocalLossHandler(TensorBoardHandler):
    """Reports the epoch means of the loss and its terms (global, focal, both Dice) to console and TensorBoard.

    The terms are added up on their device and read once per epoch, so that no step waits for them. With several
    processes their
    mean is reported, by the first one: attach the handler on all of them.

    Args:
        loss: the loss that the trainer uses.
        summary_writer: TensorBoard writer; default is a new one in ``log_dir``.
        log_dir: folder of the default writer.
        tag: prefix of the curves' names.
    """

    def __init__(
        self,
        loss: GlocalLoss,
        summary_writer: SummaryWriter | None = None,
        log_dir: str = "./runs",
        tag: str = "train_loss",
    ) -> None:
        super().__init__(summary_writer=summary_writer, log_dir=log_dir)
        self.loss = loss
        self.tag = tag
        self.epoch_means: dict[str, float] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        engine.add_event_handler(Events.COMPLETED, lambda _: self.close())

    def _reset(self, _: Engine) -> None:
        self._sums, self._steps = {}, 0

    def _add(self, _: Engine) -> None:
        for name, term in self.loss.last_terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(term)) + term
        self._steps += 1

    def _report(self, engine: Engine) -> None:
        if not self._sums:
            return
        means = torch.stack(list(self._sums.values())) / self._steps
        if idist.get_world_size() > 1:
            means = idist.all_reduce(means) / idist.get_world_size()
        self.epoch_means = dict(zip(self._sums, means.tolist(), strict=True))
        if idist.get_rank() > 0:
            return
        for name, value in self.epoch_means.items():
            self._writer.add_scalar(f"{self.tag}_{name}", value, engine.state.epoch)
        self._writer.flush()
        listed = ", ".join(f"{name} {value:.4f}" for name, value in self.epoch_means.items())
        logger.info(f"Epoch {engine.state.epoch}/{engine.state.max_epochs}, loss terms: {listed}")
