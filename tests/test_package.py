# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

import monai_anomalyclip

REPOSITORY = Path(__file__).parents[1]
SUB_PACKAGES = sorted(module.name for module in pkgutil.iter_modules(monai_anomalyclip.__path__) if module.ispkg)


def python(code: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = python(
        "import sys, monai_anomalyclip; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('torch', 'monai', 'open_clip', 'numpy') "
        "or name.startswith('monai_anomalyclip.')])"
    )
    assert loaded == "[]"


@pytest.mark.parametrize("name", SUB_PACKAGES)
def test_each_sub_package_is_reached_by_attribute(name: str) -> None:
    module = monai_anomalyclip.__getattr__(name)
    assert isinstance(module, ModuleType)
    assert module is importlib.import_module(f"monai_anomalyclip.{name}")
    assert getattr(monai_anomalyclip, name) is module
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), public


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match=r"module 'monai_anomalyclip' has no attribute 'netwerks'"):
        _ = monai_anomalyclip.netwerks
    assert not hasattr(monai_anomalyclip, "bundle_error")


def test_version_is_that_of_the_distribution() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", monai_anomalyclip.__version__)
    assert metadata.version("monai_anomalyclip") == monai_anomalyclip.__version__


def test_notice_says_what_it_must() -> None:
    assert "Research use only" in monai_anomalyclip.RESEARCH_USE_ONLY
    assert "Not a medical device" in monai_anomalyclip.RESEARCH_USE_ONLY


@pytest.mark.parametrize("path", sorted((REPOSITORY / "monai_anomalyclip").rglob("*.py")), ids=lambda path: path.stem)
def test_every_file_states_its_license(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-FileCopyrightText: monai_anomalyclip authors\n# SPDX-License-Identifier: Apache-2.0\n")
    assert "from __future__ import annotations" in text
    assert path.stem not in ("utils", "helpers", "common")
