# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A copy of the bundles to run in, and the demonstration tuned there once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.demo import phantom_sets as datalist
from monai_anomalyclip.demo.phantom_sets import prepare_demo_data

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
DEMO = "bundles/anomalyclip_demo"
TUNE = f"python -m monai.bundle run training --config_file {DEMO}/configs/train.json --bundle_root {DEMO}"


@pytest.fixture(scope="session")
def clone(copy_bundle: Callable[..., Path]) -> Callable[[Path], Path]:
    """Makes a folder like a fresh clone, as far as the documented commands need one."""

    def make(folder: Path) -> Path:
        for name in ("anomalyclip", "anomalyclip_demo", "own_normals"):
            copy_bundle(folder / "bundles", name)
        shutil.copytree(REPOSITORY / "configs", folder / "configs")
        (folder / "tests").mkdir()
        (folder / "tests" / "fixtures").symlink_to(REPOSITORY / "tests" / "fixtures")
        return folder

    return make


@pytest.fixture(scope="session")
def workspace(clone: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like a clone, with a datalist of few phantoms: commands do all that they do, in seconds."""
    folder = clone(tmp_path_factory.mktemp("clone"))
    data = folder / "bundles" / "anomalyclip_demo" / "data"
    prepare_demo_data(data, training=48, validation=24, testing=32, progress=False)
    (data / "phantoms.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        # What the datalist does not name must be there, or the commands would make it.
        patch.setattr(datalist, "_write_phantom", touch)
        prepare_demo_data(data, progress=False)
    return folder


def touch(image: Path, label: Path | None, *_: object) -> None:
    for path in (image, label):
        if path is not None:
            path.touch()


@pytest.fixture(scope="session")
def run(workspace: Path, run_command: Run) -> Run:
    """Run a command line in the workspace."""

    def run_there(command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return run_command(command, workspace, **options)

    return run_there


@pytest.fixture(scope="session")
def tuned(workspace: Path, run: Run) -> Path:
    """The workspace's demonstration bundle, tuned on few phantoms."""
    run(TUNE)
    return workspace / DEMO


@pytest.fixture(scope="session")
def demonstration(clone: Callable[[Path], Path], run_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like a clone after `make demo`, in full size."""
    folder = clone(tmp_path_factory.mktemp("demonstration"))
    run_command(TUNE, folder)
    run_command(f"python -m monai.bundle run --config_file {DEMO}/configs/inference.json --bundle_root {DEMO}", folder)
    return folder


@pytest.fixture(scope="session")
def few_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set small enough to tune on in seconds."""
    folder = tmp_path_factory.mktemp("phantoms")
    datalist.write_datalist(folder, training=24, validation=12, testing=16, progress=False)
    return folder
