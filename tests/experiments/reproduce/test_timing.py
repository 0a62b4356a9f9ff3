# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_anomalyclip.experiments.baselines import PlainCLIP
from monai_anomalyclip.experiments.reproduce import timing
from monai_anomalyclip.losses import GlocalLoss
from monai_anomalyclip.networks import AnomalyCLIP

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
    "quick_gelu": True,
}

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


def test_times_follow_from_the_fastest_of_the_timed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that the test turns: 9 s for the first run, which is not timed, then 2, 4 and 8 s."""
    ticks = iter([0.0, 9, 10, 12, 20, 24, 30, 38] * 2)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    network = AnomalyCLIP(SMALL, None, image_size=28, feature_layers=(2,), dpam_start=1, deep_prompt_depth=2)
    before = network.prompts.context_normal.detach().clone()
    optimizer = torch.optim.Adam(network.prompts.parameters())
    times = timing.time_method(network, GlocalLoss(), optimizer)
    assert times["images_per_second"] == pytest.approx(1 / 2)
    assert times["minutes_per_epoch"] == pytest.approx(216 * 2 / 60)  # 1725 images make 216 batches of 8
    assert not torch.equal(network.prompts.context_normal, before)
    assert next(ticks, None) is None


@pytest.mark.parametrize(("device", "waits"), [("cuda:1", 4), ("cpu", 0)])
def test_a_gpu_is_waited_for_within_each_run(device: str, waits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time would be that of starting the kernels. The clock is turned by the work and by the wait."""
    clock, waited = [0.0], list[torch.device]()

    def wait(given: torch.device) -> None:
        waited.append(given)
        clock[0] += 5

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    fastest = timing._fastest(lambda: clock.__setitem__(0, clock[0] + 1), torch.device(device), 3)
    assert fastest == (6 if waits else 1)
    assert waited == [torch.device(device)] * waits


def test_what_learns_nothing_has_no_epoch() -> None:
    times = timing.time_method(PlainCLIP(SMALL, None, image_size=28), GlocalLoss(), None, repeats=1)
    assert list(times) == ["images_per_second"]
    assert times["images_per_second"] > 0
