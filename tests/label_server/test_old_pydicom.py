# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""This package under pydicom 2.4, as MONAI Label's environment has it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from monai_anomalyclip.data import load_input
from monai_anomalyclip.demo.volumes import write_dicom_series

pytestmark = pytest.mark.label_server

IMPORT_ALL = """
import importlib, pkgutil
import monai_anomalyclip
for module in pkgutil.walk_packages(monai_anomalyclip.__path__, "monai_anomalyclip."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except Exception as error:
        print("FAILED", module.name, type(error).__name__, error)
"""

READ = """
import sys
from pathlib import Path
import numpy as np
import pydicom
from monai_anomalyclip.data import UnreadableInputError, load_input
assert pydicom.__version__.startswith("2."), pydicom.__version__
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image = load_input(folder)
    except UnreadableInputError as error:
        print(f"{folder.name}: {error}")
    else:
        content = {"image": image.numpy(), "affine": image.affine.numpy(), "intensity": image.meta["intensity"]}
        np.savez(folder.with_suffix(".npz"), **content)
"""

SERIES = {
    "ct": {},
    "big endian": {"transfer_syntax": "1.2.840.10008.1.2.2"},
    "deflated": {"transfer_syntax": "1.2.840.10008.1.2.1.99"},
    "implicit": {"transfer_syntax": "1.2.840.10008.1.2"},
    "enhanced": {"enhanced": True},
    "mr": {"modality": "MR"},
    "cr": {
        "modality": "CR",
        "count": 1,
        "photometric": "MONOCHROME1",
        "signed": False,
        "inverted": True,
        "positioned": False,
    },
    "rgb": {"modality": "ES", "count": 1, "photometric": "RGB", "positioned": False},
    "ybr": {"modality": "ES", "count": 1, "photometric": "YBR_FULL", "positioned": False},
}


def run(python: Path, script: str, *arguments: object) -> str:
    command = [str(python), "-W", "ignore", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_what_the_server_needs_imports_and_the_rest_says_why_not(label_python: Path) -> None:
    lines = run(label_python, IMPORT_ALL).splitlines()
    failed = [line.split(" ", 3)[1:] for line in lines if line.startswith("FAILED")]
    for name, kind, message in failed:
        assert kind == "ImportError", f"{name}: {message}"
        assert "written with highdicom and pydicom 3" in message, f"{name}: {message}"
    needed = ("data", "demo", "engines", "inferers", "label", "losses", "metrics", "networks", "transforms")
    assert not [name for name, _, _ in failed if name.split(".")[1] in needed]
    handlers = [name for name, _, _ in failed if name.startswith("monai_anomalyclip.handlers")]
    assert handlers == ["monai_anomalyclip.handlers.result_writer"]


def test_phantoms_are_the_same_files(label_python: Path, tmp_path: Path) -> None:
    """`make label-demo` makes the demonstration's data there."""
    script = "import sys; from monai_anomalyclip.demo.volumes import write_dicom_series as write; write(sys.argv[1], 3)"
    run(label_python, script, tmp_path / "old")
    write_dicom_series(tmp_path / "new", 3)
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "old").iterdir())
    for name in files:
        old, new = (dcmread(tmp_path / folder / name) for folder in ("old", "new"))
        assert old == new
        assert old.file_meta.TransferSyntaxUID == new.file_meta.TransferSyntaxUID


@pytest.fixture(scope="module")
def readings(label_python: Path, phantoms: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of the series and of what pydicom 2 reads of each, and what could not be read."""
    folder = tmp_path_factory.mktemp("series")
    for name, options in SERIES.items():
        phantoms.make_series(folder / name, **options)
    phantoms.make_series(folder / "compressed", transfer_syntax="1.2.840.10008.1.2.5")
    return folder, run(label_python, READ, folder)


def approximately(value: Any) -> Any:
    """The same with numbers that may differ by a rounding of float32."""
    if isinstance(value, dict):
        return {key: approximately(one) for key, one in value.items()}
    if isinstance(value, list):
        return [approximately(one) for one in value]
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize("name", SERIES)
def test_uncompressed_series_are_read_as_under_pydicom_3(name: str, readings: tuple[Path, str]) -> None:
    folder, _ = readings
    expected = load_input(folder / name)
    with np.load(folder / f"{name}.npz") as found:
        np.testing.assert_array_equal(found["image"], expected.numpy())
        np.testing.assert_array_equal(found["affine"], expected.affine.numpy())
        # Another numpy may round the last digit of a percentile otherwise.
        assert json.loads(str(found["intensity"])) == approximately(json.loads(expected.meta["intensity"]))


def test_compressed_series_say_what_to_do(readings: tuple[Path, str]) -> None:
    (message,) = readings[1].splitlines()
    assert message.startswith("compressed: ")
    assert "cannot decode compressed pixels" in message
    assert "pydicom 3" in message


def test_the_label_app_reads_compressed_series_all_the_same(
    label_python: Path, readings: tuple[Path, str], tmp_path: Path
) -> None:
    script = (
        "import sys, numpy; from monai_anomalyclip.label.reading import read_image; "
        "image = read_image(sys.argv[1]); numpy.savez(sys.argv[2], image=image.numpy(), affine=image.affine.numpy())"
    )
    series = readings[0] / "compressed"
    run(label_python, script, series, tmp_path / "read.npz")
    expected = load_input(series)
    with np.load(tmp_path / "read.npz") as found:
        np.testing.assert_array_equal(found["image"], expected.numpy())
        np.testing.assert_array_equal(found["affine"], expected.affine.numpy())
