# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
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
    module = getattr(monai_anomalyclip, name)
    assert isinstance(module, ModuleType)
    assert module is importlib.import_module(f"monai_anomalyclip.{name}")
    assert getattr(monai_anomalyclip, name) is module
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), public


STUBS = sorted((REPOSITORY / "monai_anomalyclip").rglob("__init__.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.parent.name)
def test_what_a_package_hands_out_is_what_its_stub_says(stub: Path) -> None:
    lines = ast.parse(stub.read_text(encoding="utf-8")).body
    names = [alias.name for line in lines if isinstance(line, ast.ImportFrom) for alias in line.names]
    names += [line.target.id for line in lines if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    (listed,) = (ast.literal_eval(line.value) for line in lines if isinstance(line, ast.Assign))
    package = importlib.import_module(".".join(stub.parent.relative_to(REPOSITORY).parts))
    assert sorted(names) == sorted(listed) == sorted(package.__all__)
    assert all(hasattr(package, name) for name in names)
    # A module of the same name would take the place of what is handed out as soon as it is imported.
    modules = {path.stem for path in stub.parent.iterdir()}
    if stub.parent.name not in ("monai_anomalyclip", "experiments"):  # whose sub-packages are meant themselves
        assert not modules & set(names)


def test_packages_import_nothing_before_it_is_used() -> None:
    names = [".".join(stub.parent.relative_to(REPOSITORY).parts) for stub in STUBS]
    loaded = python(
        f"import importlib, sys; [importlib.import_module(name) for name in {names}]; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('torch', 'monai', 'numpy', 'pydicom')])"
    )
    assert loaded == "[]"


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="netwerks"):
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
    assert text.startswith(
        "# SPDX-FileCopyrightText: monai_anomalyclip authors\n# SPDX-License-Identifier: Apache-2.0\n"
    )
    assert "from __future__ import annotations" in text
    assert path.stem not in ("utils", "helpers", "common")


def test_the_way_of_one_series_to_its_segmentation_is_short(face_bundle: Path, ct_study: Path, tmp_path: Path) -> None:
    """The modules that `predict` imports for one series, command line included, but for packages' own ``__init__``."""
    command = ["predict", str(ct_study), "-o", str(tmp_path / "out"), "--bundle", str(face_bundle), "--outputs", "seg"]
    loaded = python(
        f"import sys; from monai_anomalyclip.cli import main; assert main({command}) == 0; print(sorted(name "
        "for name, module in sys.modules.items() if name.startswith('monai_anomalyclip.') "
        "and not module.__file__.endswith('__init__.py')))"
    )
    names = ast.literal_eval(loaded.splitlines()[-1])
    assert "monai_anomalyclip.writers.dicom.segmentation" in names
    assert len(names) <= 70, names
    assert list((tmp_path / "out").glob("*_seg.dcm"))
