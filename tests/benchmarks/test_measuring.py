# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Script = Callable[[str], ModuleType]
CPU = torch.device("cpu")


def busy(seconds: float) -> Callable[[], None]:
    def run() -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    return run


def test_calls_take_turns(script: Script) -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = script("measuring").timings(calls, 3, CPU)
    assert order == list("abbaab")
    assert all(len(timing.wall) == len(timing.cpu) == 3 for timing in found.values())


def test_ratio_and_spread(script: Script) -> None:
    measuring = script("measuring")
    slow, fast = measuring.Timing(), measuring.Timing()
    slow.wall, slow.cpu, fast.wall, fast.cpu = [4.0, 6.0, 9.0], [3.0], [1.0, 2.0, 3.0], [1.0]
    assert slow.over(fast) == {"ratio": 3.0, "ratio_least": 4 / 3, "ratio_most": 9.0, "cpu_ratio": 3.0}
    timing = measuring.Timing()
    timing.measure(busy(0.05), CPU)
    assert timing.median >= 0.05


def test_peak_memory_of_a_call_that_frees_it_again(script: Script) -> None:
    def run() -> None:
        held = torch.ones(60 * 2**18)  # 60 MiB
        busy(0.1)()
        del held

    assert 40 < script("measuring").peak_mib(run, CPU) < 200


def test_network_and_record(script: Script, thin_model: Path, tmp_path: Path) -> None:
    measuring = script("measuring")
    first, second = (measuring.random_network(str(thin_model), 84, "cpu") for _ in range(2))
    image = torch.randn(1, 3, 84, 84)
    assert torch.equal(first(image), second(image))
    measuring.write_record(tmp_path / "out.json", {"machine": measuring.machine(CPU)})
    assert json.loads((tmp_path / "out.json").read_text())["machine"]["torch"] == torch.__version__
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "thin.json"]


@pytest.mark.parametrize("name", ["inference", "tuning", "scaling"])
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "examples:"),
        (["--repeats", "0"], 2, "at least 1"),
        (["--json", __file__], 2, "exists; give another name"),
        (["--device", "cuda:7"], 2, "no GPU"),
    ],
)
def test_arguments(
    name: str,
    arguments: list[str],
    status: int,
    said: str,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        script(name).main(arguments)
    assert left.value.code == status
    assert said in "".join(capsys.readouterr())
