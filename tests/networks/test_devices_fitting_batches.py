# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_anomalyclip.networks.devices import FittingBatches


def test_what_does_not_fit_goes_through_in_halves_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def room_for_three(part: torch.Tensor) -> list[float]:
        seen.append(len(part))
        if len(part) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return part.tolist()

    batches = FittingBatches()
    assert [one for part in batches(room_for_three, torch.arange(9.0)) for one in part] == list(range(9))
    assert seen == [9, 4, 2, 2, 2, 2, 1]
    seen.clear()
    assert batches(room_for_three, torch.arange(3.0)) == [[0, 1], [2]]
    assert [record.message for record in caplog.records] == [
        "9 images at once do not fit into the device's memory: 4 now.",
        "4 images at once do not fit into the device's memory: 2 now.",
    ]


@pytest.mark.parametrize(("device", "given_back"), [("cuda", ["freed", "freed"]), ("cpu", [])])
def test_a_gpu_gives_back_what_it_holds_before_the_next_try(
    device: str, given_back: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a tensor without memory, which says that it is on a GPU."""
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append("freed"))

    def room_for_one(part: torch.Tensor) -> int:
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return len(part)

    with FakeTensorMode():
        batch = torch.empty(4, 3, device=device)
    assert FittingBatches()(room_for_one, batch) == [1, 1, 1, 1]
    assert events == given_back
