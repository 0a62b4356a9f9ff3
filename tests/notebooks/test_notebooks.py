# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Every notebook runs by itself from a clean copy, in time, and does again what its committed outputs show.

Marked `notebooks`, and run by ``make test-notebooks``: some minutes.
"""

from __future__ import annotations

import importlib.util
import resource
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LIMIT_S = 180  # of processor time in one thread, which other work on the machine does not lengthen much

pytestmark = pytest.mark.notebooks

# What a notebook leaves in its folder, beside its outputs.
MADE = {
    "1_zero_shot": ["frames/report.html", "frames/scores.csv", "tuned/model.pt"],
    "2_dicom_study": ["study/report.html", "study/*_seg.dcm", "study/*_sr.dcm", "study/*_map.nii.gz"],
    "3_tune_and_calibrate": ["mine/datalist.json", "mine_tuned/model.thresholds.json", "mine_results/report.html"],
    "4_compare_methods": [f"compare/{method}/metrics_per_class.csv" for method in ("AnomalyCLIP", "CLIP", "WinCLIP")],
    "5_explain_a_heat_map": ["tuned/model.pt"],
    "6_monai_label": ["label_model/prompts.pt", "label_model/previous/*.pt", "studies_truth/brain_00.nii.gz"],
    "7_own_normals": ["own_normals_results/report.html", "own_normals_results/inputs.csv"],
}


def processor_time() -> float:
    """Seconds that the finished kernels and their commands took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_clean_copy_holds_nothing_that_is_made_later(tool: ModuleType, tmp_path: Path) -> None:
    folder = tool.clean_copy(tmp_path / "clone")
    assert sorted(folder.glob("*.ipynb")) == [folder / path.name for path in NOTEBOOKS]
    assert not list((tmp_path / "clone").rglob("*.pt"))
    assert not [path for path in (tmp_path / "clone").rglob("*") if path.name in ("runs", "data") and path.is_dir()]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_a_clean_copy(
    notebook: Path, tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tool.clean_copy(tmp_path / "clone")
    started = processor_time()
    executed = tool.execute(folder / notebook.name)  # raises where a cell does, its assertions included
    elapsed = processor_time() - started
    print(f"{notebook.name}: {elapsed:.0f} s of processor time")
    for pattern in MADE[notebook.stem]:
        assert list((folder / "runs").glob(pattern)), f"{notebook.name} left no runs/{pattern}"
    committed = nbformat.read(notebook, as_version=4)
    kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in executed.cells]
    assert kinds == [[output.output_type for output in cell.get("outputs", [])] for cell in committed.cells]
    assert elapsed < LIMIT_S, f"{notebook.name} took {elapsed:.0f} s"


def test_failing_cell_is_an_error(tool: ModuleType, tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("assert 1 > 2")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "failing.ipynb")
    with pytest.raises(CellExecutionError, match="AssertionError"):
        tool.execute(tmp_path / "failing.ipynb")
