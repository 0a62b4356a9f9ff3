# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def test_two_processes_equal_one(sharded: ModuleType, brute: ModuleType, tmp_path: Path) -> None:
    maps, masks = brute.random_maps(count=11, levels=30)
    data = {
        "maps": maps,
        "masks": masks,
        "labels": masks.any(axis=(1, 2, 3)).astype(np.int64),
        "scores": maps.max(axis=(1, 2, 3)),
        "classes": np.array(["one", "one", "one", *["other"] * 8]),
    }
    # Forked, because new ones would spend many seconds on imports.
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=sharded.run_process, args=(data, tmp_path, rank), daemon=True) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    alone = dict(sharded.values(data, {"alone": list(range(11))}))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for how in ("alternating", "uneven", "all on one", "none on the first"):
            own = {name.removeprefix(f"{how} "): value for name, value in found if name.startswith(f"{how} ")}
            expected = {name.removeprefix("alone "): value for name, value in alone.items()}
            assert own == pytest.approx(expected, abs=1e-13, nan_ok=True)
    assert sum(np.isfinite(list(alone.values()))) > 40
