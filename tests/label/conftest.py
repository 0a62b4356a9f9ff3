# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A copy of the demonstration bundle with prompts that were never tuned."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.label import AnomalyModel

DEMO = Path(__file__).parents[2] / "bundles" / "anomalyclip_demo"


@pytest.fixture(scope="session")
def weak_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundle") / DEMO.name
    shutil.copytree(DEMO, bundle, ignore=shutil.ignore_patterns("data", "runs", "*.pt"))
    torch.manual_seed(0)
    demo_network(deep_prompt_depth=4).save_prompts(bundle / "models" / "model.pt")
    return bundle


@pytest.fixture
def model(weak_bundle: Path, tmp_path: Path) -> AnomalyModel:
    return AnomalyModel(weak_bundle, tmp_path / "app" / "model")
