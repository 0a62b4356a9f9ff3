# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts as modules, and a CLIP of four thin blocks for them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """``script("tuning")``: the module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def thin_model(tmp_path: Path) -> Path:
    """A configuration file for ``--model``."""
    content = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 28, "layers": 4, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 2},
        "quick_gelu": True,
    }
    (tmp_path / "thin.json").write_text(json.dumps(content))
    return tmp_path / "thin.json"
