# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A quick bundle for the command line, the builder of synthetic DICOM, and the programs that look at the results."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from monai_anomalyclip.cli import main

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
BUNDLE = REPOSITORY / "bundles" / "anomalyclip_demo"
MODULES = (HERE, HERE.parent / "data" / "dicom", REPOSITORY / "benchmarks")


# Modules beside this file, the phantom builder and the benchmarks can be imported, by name in configurations, too.
sys.path += map(str, MODULES)


@pytest.fixture(scope="session")
def phantoms() -> ModuleType:
    """The builder of synthetic DICOM series."""
    return importlib.import_module("dicom_phantoms")


@pytest.fixture(scope="session")
def places() -> ModuleType:
    """Where voxels lie, by other programs than ours."""
    return importlib.import_module("voxel_places")


@pytest.fixture(scope="session")
def quick_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write an overlay of the demonstration's inference.json with a network whose map is the picture itself."""

    def write(image_size: Sequence[int] = (16, 20), **changes: Any) -> Path:
        network = {"_target_": "brightness_network.BrightnessNetwork", "image_size": list(image_size)}
        config = {"network_def": network, "prompts": None, "initialize": [], "sigma": 0.0, "device": "cpu"}
        path = tmp_path_factory.mktemp("config") / "quick.json"
        path.write_text(json.dumps({**config, **changes}))
        return path

    return write


@pytest.fixture(scope="session")
def command_line(quick_config: Callable[..., Path]) -> Callable[..., list[str]]:
    """The command line of ``monai-anomalyclip predict`` with the quick bundle, without the program's name."""

    def make(inputs: Path | Sequence[Path], output: Path, *options: object, config: Path | None = None) -> list[str]:
        paths = [inputs] if isinstance(inputs, Path) else inputs
        own = ("--bundle", BUNDLE, "--config", config or quick_config())
        return [str(part) for part in ("predict", *paths, "-o", output, *own, *options)]

    return make


@pytest.fixture(scope="session")
def predict(command_line: Callable[..., list[str]]) -> Callable[..., int]:
    """Run the command line in this process; returns its exit status."""

    def run(*values: object, **options: Any) -> int:
        return main(command_line(*values, **options))

    return run


@pytest.fixture(scope="session")
def python_apart() -> Callable[..., subprocess.Popen[str]]:
    """Start Python in a process of its own."""

    def start(*words: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, *words], env=environment(), text=True, errors="replace", **pipes)

    return start


@pytest.fixture(scope="session")
def predict_apart(
    command_line: Callable[..., list[str]], python_apart: Callable[..., subprocess.Popen[str]]
) -> Callable[..., subprocess.Popen[str]]:
    """Start the command line in a process of its own."""

    def start(*values: object, **options: Any) -> subprocess.Popen[str]:
        return python_apart("-m", "monai_anomalyclip", *command_line(*values, **options))

    return start


class Finished(NamedTuple):
    """A process that has ended.

    Args:
        status: exit status.
        said: standard output and standard error.
        peak: most bytes of memory that it held at a time.
    """

    status: int
    said: str
    peak: int


@pytest.fixture
def predict_measured(command_line: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Finished]:
    """Run the command line in a process of its own, for so many seconds of the processor, and measure its memory."""

    def run(*values: object, seconds: int = 300, **options: Any) -> Finished:
        command = [sys.executable, "-m", "monai_anomalyclip", *command_line(*values, **options)]
        log = tmp_path / "said.txt"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, env=environment(), stdout=stream, stderr=subprocess.STDOUT)
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        return Finished(process.returncode, log.read_text(errors="replace"), usage.ru_maxrss * 1024)

    return run


def environment() -> dict[str, str]:
    """The environment in which another process finds this checkout and the modules beside this file."""
    folders = os.pathsep.join(map(str, (REPOSITORY, *MODULES)))
    return {**os.environ, "PYTHONPATH": folders, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def run_tool() -> Callable[..., str]:
    """Run a program of dicom3tools or dcmqi; returns what it printed."""

    def run(name: str, *options: object) -> str:
        program = Path(sys.executable).with_name(name)
        if not program.exists():
            pytest.skip(f"{name} (packages dicom3tools and dcmqi) is not installed")
        command = [str(part) for part in (program, *options)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # dciodvfy returns 1 for the warnings that it prints
        assert done.returncode == 0 or name == "dciodvfy", done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
