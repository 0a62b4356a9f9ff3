# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A trainer with the handler against one whose loss has the term written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from monai_anomalyclip.handlers import ProximalTerm

BATCHES = [{"image": torch.randn(4, 3), "label": torch.randn(4, 2)} for _ in range(5)]


def trainer_of(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], amp: bool = False) -> SupervisedTrainer:
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=BATCHES,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=0.1),
        loss_function=loss,
        decollate=False,
        amp=amp,
    )


def pair() -> tuple[nn.Linear, nn.Linear]:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    return first, second


@pytest.mark.parametrize("mu", [0.0, 0.3, 50.0])
def test_it_is_the_term_of_the_paper(mu: float) -> None:
    held, written_out = pair()
    began = [parameter.detach().clone() for parameter in held.parameters()]

    def with_term(output: Tensor, target: Tensor) -> Tensor:
        away = sum(((now - then) ** 2).sum() for now, then in zip(written_out.parameters(), began, strict=True))
        return nn.functional.mse_loss(output, target) + mu / 2 * away

    trainer = trainer_of(held, nn.functional.mse_loss)
    ProximalTerm(held, mu).attach(trainer)
    trainer.run()
    trainer_of(written_out, with_term).run()
    for ours, theirs in zip(held.parameters(), written_out.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_each_run_is_held_near_its_own_beginning() -> None:
    network, _ = pair()
    trainer = trainer_of(network, nn.functional.mse_loss)
    ProximalTerm(network, 1e4).attach(trainer)
    moved = {name: value + 100 for name, value in network.state_dict().items()}
    trainer.run()
    network.load_state_dict(moved)
    trainer.state.max_epochs = 4
    trainer.run()
    away = [(value - moved[name]).abs().max() for name, value in network.state_dict().items()]
    assert max(away) < 5, "it was pulled to where the first run began"


def test_what_is_frozen_stays() -> None:
    network, _ = pair()
    network.bias.requires_grad_(False)
    bias = network.bias.clone()
    trainer = trainer_of(network, nn.functional.mse_loss)
    ProximalTerm(network, 1.0).attach(trainer)
    trainer.run()
    assert torch.equal(network.bias, bias)


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf")])
def test_mu_is_checked(mu: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        ProximalTerm(nn.Linear(1, 1), mu)


def test_scaled_gradients_are_refused() -> None:
    network, _ = pair()
    with pytest.raises(ValueError, match="amp=False"):
        ProximalTerm(network, 1.0).attach(trainer_of(network, nn.functional.mse_loss, amp=True))
