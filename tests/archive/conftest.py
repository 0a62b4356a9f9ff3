# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A real Orthanc in a network namespace of its own, and the demonstration's model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.archive.results import ARCHIVE_IDS
from monai_anomalyclip.scale.warm_run import RunOptions, WarmRun


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory, untuned_bundle: Callable[..., Path]) -> RunOptions:
    bundle = untuned_bundle(tmp_path_factory.mktemp("archive") / "bundle")
    return RunOptions(bundle, ids={**ARCHIVE_IDS, "device": "cpu", "keep_names": False})


@pytest.fixture(scope="session")
def warm(options: RunOptions) -> WarmRun:
    return WarmRun(options)
