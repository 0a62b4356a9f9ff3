# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of the glocal loss: each on its own curve while tuning, and over the images of an evaluation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.handlers.tensorboard_handlers import TensorBoardHandler
from monai.utils.enums import CommonKeys
from torch import Tensor

from monai_anomalyclip.losses import GlocalLoss

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "EvaluationLoss",
    "GlocalLossHandler",
    "ProximalTerm",
]

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

    Example::

        loss = GlocalLoss()
        GlocalLossHandler(loss, log_dir="runs/tuning").attach(trainer)
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


_PER_IMAGE = "global"  # the other terms are of pixels, where the mask is known
_SUM = "total"  # its weights would depend on the loss


class EvaluationLoss:
    """Puts the loss terms of all images into ``engine.state.metrics``, as ``loss_global``, ``loss_focal`` and so on.

    The global term is the mean over images; the pixel terms (focal, both Dice), not weighted by lambda, are the mean
    over those whose mask is known. Unlike the means over batches that tuning reports they do not depend on how the
    images are shared out to batches and processes. NaN where there are no masks.

    The evaluator's network must give the logits beside the prediction (``PrepareAnomalyBatch("all")``), and its
    targets ``has_label``.

    Args:
        loss: with ``last_terms``, as :class:`~monai_anomalyclip.losses.GlocalLoss`.

    Example::

        EvaluationLoss(GlocalLoss()).attach(evaluator)  # state.metrics["loss_global"], ...
    """

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self._names: list[str] = []
        self._images: list[int] = []
        self._found: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Attach to one of MONAI's evaluators, before what writes its metrics."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _reset(self, _: Engine) -> None:
        self._names, self._images, self._found = [], [], []

    def _add(self, engine: Engine) -> None:
        output = engine.state.output  # of the whole batch, on its device: it is taken apart later
        target = output[CommonKeys.LABEL]
        with torch.no_grad():
            self.loss(output[CommonKeys.PRED], target)
        terms = {name: term for name, term in self.loss.last_terms.items() if name != _SUM}
        self._names = list(terms)
        self._images.append(len(target["image_label"]))
        # Asked for at the end: to ask here would make the host wait for a GPU.
        self._found.append(torch.stack([*terms.values(), target["has_label"].sum().to(next(iter(terms.values())))]))

    def _report(self, engine: Engine) -> None:
        values = torch.stack(self._found).cpu().double() if self._found else torch.zeros(0, 1, dtype=torch.float64)
        of_images = torch.tensor(self._images, dtype=torch.float64)
        counts = [of_images if name == _PER_IMAGE else values[:, -1] for name in self._names]
        sums = [(values[:, index] * count).sum() for index, count in enumerate(counts)]
        totals = torch.stack([*sums, of_images.sum(), values[:, -1].sum()])
        if idist.get_world_size() > 1:
            totals = idist.all_reduce(totals)
        *found, images, masks = totals.tolist()
        for name, value in zip(self._names, found, strict=True):
            count = images if name == _PER_IMAGE else masks
            engine.state.metrics[f"loss_{name}"] = value / count if count else float("nan")


class ProximalTerm:
    """Adds the gradient of ``mu / 2 * ||w - w_0||^2``, where w_0 are the weights at the start of the trainer's run.

    So the sites of a federated tuning go less far apart in a round (Li et al., Federated Optimization in Heterogeneous
    Networks, MLSys 2020, equation 2). The reported loss is that of the task alone.

    Args:
        network: whose parameters with ``requires_grad`` are held.
        mu: at least 0; 0 changes nothing. It may be set anew before each run.

    Raises:
        ValueError: ``mu`` is negative or no number, or the trainer scales its gradients (``amp=True``).

    Example:
        >>> ProximalTerm(trainer.network, mu=0.1).attach(trainer)
    """

    def __init__(self, network: torch.nn.Module, mu: float) -> None:
        self.network = network
        self.mu = mu
        self._began: list[tuple[torch.nn.Parameter, Tensor]] = []

    @property
    def mu(self) -> float:
        return self._mu

    @mu.setter
    def mu(self, value: float) -> None:
        if not 0 <= value < float("inf"):
            raise ValueError(f"mu of FedProx must be a number of at least 0, not {value}.")
        self._mu = float(value)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer of MONAI, after the handlers that load weights."""
        if getattr(engine, "amp", False):
            raise ValueError("FedProx adds to gradients as they are: tune with amp=False.")
        engine.add_event_handler(Events.STARTED, self._remember)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._add)

    def _remember(self, _: Engine) -> None:
        held = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._began = [(parameter, parameter.detach().clone()) for parameter in held]

    def _add(self, _: Engine) -> None:
        for parameter, began in self._began if self.mu else ():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - began, alpha=self.mu)
