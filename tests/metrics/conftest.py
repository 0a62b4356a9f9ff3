# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The oracles of the metrics' tests: brute force, and the published loop of the benchmarks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def brute() -> ModuleType:
    """The oracle module ``brute_metrics`` beside this file."""
    return load(Path(__file__).with_name("brute_metrics.py"))


@pytest.fixture(scope="session")
def sharded() -> ModuleType:
    """The module ``sharded_metrics`` beside this file, whose functions run in several processes."""
    return load(Path(__file__).with_name("sharded_metrics.py"))


@pytest.fixture(scope="session")
def published_loop() -> Callable[[np.ndarray, np.ndarray], float]:
    """The published PRO computation, (masks, maps) -> value, as the benchmarks have it."""
    path = Path(__file__).parents[2] / "benchmarks" / "published_pro_loop.py"
    function: Callable[[np.ndarray, np.ndarray], float] = load(path).published_pro_loop
    return function


@pytest.fixture(scope="session")
def recorded(data_dir: Path) -> dict[str, np.ndarray]:
    """Masks, maps, labels and scores with the metrics that scikit-learn and the authors' definition give for them."""
    with np.load(data_dir / "metrics.npz") as file:
        return {key: file[key] for key in file.files}
