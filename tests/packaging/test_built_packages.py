# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The sdist and the wheel, built from a copy of the repository, and the wheel in a bare environment elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import monai_anomalyclip

REPOSITORY = Path(__file__).parents[2]
VERSION = monai_anomalyclip.__version__


@pytest.fixture(scope="module")
def built(copy_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both; the wheel is built from the sdist, as `python -m build` does."""
    source = tmp_path_factory.mktemp("source")
    for name in ("anomalyclip", "anomalyclip_demo", "own_normals"):
        copy_bundle(source / "bundles", name)
    for name in ("monai_anomalyclip", "configs"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    for name in ("models/model.pt", "data/image.png", "runs/report.html"):  # what use adds, and must not be published
        path = source / "bundles" / "anomalyclip_demo" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    output = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", output, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_both_are_built(built: Path) -> None:
    wanted = {f"monai_anomalyclip-{VERSION}.tar.gz", f"monai_anomalyclip-{VERSION}-py3-none-any.whl"}
    assert {path.name for path in built.iterdir()} == wanted


def test_wheel_holds_every_module_and_all_data(names: set[str]) -> None:
    package = REPOSITORY / "monai_anomalyclip"
    modules = {path.relative_to(REPOSITORY).as_posix() for path in package.rglob("*.py")}
    data = {
        path.relative_to(REPOSITORY).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert modules <= names
    assert data <= names
    for folder in ("bundles", "configs"):
        shipped = {
            f"monai_anomalyclip/{path.relative_to(REPOSITORY).as_posix()}"
            for path in (REPOSITORY / folder).rglob("configs/*.json")
        }
        assert shipped <= names
    assert len([name for name in names if name.startswith("monai_anomalyclip/configs/")]) == len(
        list((REPOSITORY / "configs").rglob("*.json"))
    )


def test_wheel_holds_nothing_else(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert tops == {"monai_anomalyclip", f"monai_anomalyclip-{VERSION}.dist-info"}
    assert not [name for name in names if "/runs/" in name or "/data/image" in name or name.endswith("model.pt")]
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_page_of_the_package(built: Path) -> None:
    """What a package index shows: its links lead somewhere."""
    (wheel,) = built.glob("*.whl")
    packed = zipfile.ZipFile(wheel)
    shown = message_from_bytes(packed.read(f"monai_anomalyclip-{VERSION}.dist-info/METADATA"))
    text = shown.get_payload()
    assert "](https://arxiv.org/abs/2310.18961)" in text
    assert "Research use only" in text
    assert re.findall(r"\]\((?!https://|http://127\.0\.0\.1)[^)]*\)", text) == []
    urls = dict(line.split(", ") for line in shown.get_all("Project-URL"))
    assert urls["Paper"] == "https://arxiv.org/abs/2310.18961"
    assert shown["Requires-Python"] == "<3.14,>=3.10"
    assert {"all", "label"} <= set(shown.get_all("Provides-Extra"))


def test_sdist_builds_alone(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "setup.py", "LICENSE", "README.md", "bundles/anomalyclip/configs/inference.json"} <= files
    assert not [name for name in files if name.endswith("model.pt") or name.startswith("tests/")]


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; dependencies come from this one's, whose copy of the package is not seen."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True, capture_output=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # added, its .pth files not read
    return folder / "bin"


def run(program: Path, *words: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MONAI_ANOMALYCLIP_WEIGHTS": str(cwd / "weights")}
    done = subprocess.run([program, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(os.name == "nt", reason="folders of environments are named otherwise")
def test_installed_without_the_repository(installed: Path, tmp_path: Path) -> None:
    command = installed / "monai-anomalyclip"
    assert run(command, "--version", cwd=tmp_path) == f"monai-anomalyclip {VERSION}\n"
    where = run(installed / "python", "-c", "import monai_anomalyclip as it; print(it.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    run(command, "copy-bundle", "anomalyclip_demo", "demo", cwd=tmp_path)
    prompts = (
        "from monai_anomalyclip.demo import demo_network as net; "
        "net(deep_prompt_depth=4).save_prompts('demo/models/model.pt')"
    )
    run(installed / "python", "-c", prompts, cwd=tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pictures" / "picture.png")
    shown = run(command, "predict", "pictures", "-o", "results", "--bundle", "demo", "--device", "cpu", cwd=tmp_path)
    assert " ok" in shown
    assert (tmp_path / "results" / "report.html").is_file()
    run(command, "reproduce", "2", "--list", cwd=tmp_path)
