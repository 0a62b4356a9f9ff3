# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""FedProx: a tuning that is held near the prompts with which it began."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

__all__ = ["ProximalTerm"]


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
