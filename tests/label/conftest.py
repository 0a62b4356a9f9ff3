# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A copy of the demonstration bundle with prompts that were never tuned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.label import AnomalyModel


@pytest.fixture(scope="session")
def weak_bundle(untuned_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untuned_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def model(weak_bundle: Path, tmp_path: Path) -> AnomalyModel:
    return AnomalyModel(weak_bundle, tmp_path / "app" / "model")
