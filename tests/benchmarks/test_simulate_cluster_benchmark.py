# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "simulate_cluster.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_times_that_can_be_calculated(script: ModuleType) -> None:
    """Without chance: one worker takes the sum; ten take a tenth, until the store is all there is."""
    plain = replace(script.Work(), slices=100_000, stragglers=0.0, losses=0.0)
    one = script.simulate(plain, 1)
    scored = 100_000 * (plain.decode_s + plain.slice_s) * 1.0317  # the mean of the lognormal factor
    moved = 100_000 * (plain.slice_bytes / plain.network + plain.result_bytes / plain.store)
    assert one.hours * 3600 == pytest.approx(plain.load_s + scored + moved, rel=0.03)
    assert script.simulate(plain, 10).hours == pytest.approx(one.hours / 10, rel=0.05)
    slow = replace(plain, store=1e6)
    many = script.simulate(slow, 100)
    assert many.bound == "store"
    assert many.hours * 3600 == pytest.approx(100_000 * plain.result_bytes / 1e6, rel=0.05)


def test_losses_are_redone_and_cost_time(script: ModuleType) -> None:
    plain = replace(script.Work(), slices=100_000, stragglers=0.0, losses=0.0)
    lossy = script.simulate(replace(plain, losses=5.0), 10)
    assert lossy.redone > 0
    assert lossy.hours > script.simulate(plain, 10).hours


def test_command(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--slices", "5000", "--workers", "1", "5", "--json", str(tmp_path / "x.json")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit):
        script.main(["--workers", "many"])
