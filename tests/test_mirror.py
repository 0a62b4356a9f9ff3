# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The tests lie as the package does: tests/PACKAGE/test_MODULE.py, or several files test_MODULE_*.py."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE, TESTS = REPOSITORY / "monai_anomalyclip", REPOSITORY / "tests"

APART = {
    "benchmarks": "the scripts in benchmarks/",
    "clients": "the modules in clients/, which run in other programs",
    "configurations": "the bundles and overlays in bundles/ and configs/, run as documented",
    "docs": "the pages of docs/ and the README",
    "end_to_end": "the whole command line",
    "label_server": "real servers of MONAI Label",
    "notebooks": "the notebooks",
    "packaging": "sdist, wheel and requirements",
    "tools": "tools/, which is not installed",
}
"""Folders of tests that belong to no module, and what they test."""

WITHOUT_MODULE = {
    "test_examples": "the docstrings of the whole package",
    "test_mirror": "this file",
    "test_order": "the package as a whole",
    "test_package": "the package as a whole",
    "test_top_level_documents": "the files at the top of the repository",
    "experiments/baselines/test_recorded": "all baselines, against their authors' code",
    "reference/test_package": "what the package hands out",
    "reference/test_real_images": "the whole method, on real surfaces",
    "experiments/reproduce/test_every_table": "all tables, from end to end",
    "experiments/baselines/test_method_overlays": "the overlays of the methods in configs/",
    "experiments/reproduce/test_docs": "docs/experiments.md",
    "scale/test_engines": "the templates, on real schedulers",
    "experiments/reproduce/test_overlays": "the overlays of the experiments in configs/",
}

ELSEWHERE = {
    "archive/results": "archive/test_service",
    "data/datasets/listing": "data/datasets/test_own_data",
    "data/datasets/registry": "experiments/datasets/test_registry_layouts",
    "data/dicom/pixel_stream": "data/dicom/test_pixels",
    "demo/heads": "demo/test_phantoms",
    "demo/industrial": "demo/test_phantoms",
    "demo/medical": "demo/test_phantoms",
    "experiments/reproduce/ablations": "experiments/reproduce/test_tables",
    "export/onnx_file": "export/test_exporting",
    "federated/job_script": "federated/test_job",
    "label/archive_labels": "label_server/test_own_app_dicomweb",
    "label/checked_datastores": "label_server/test_hostile_requests",
    "label/server_checks": "label_server/test_hostile_requests",
    "label/tasks": "label_server/test_own_app_files",
    "label/strategies": "label_server/test_own_app_files",
}
"""Modules that are tested through the one that they serve, or that need MONAI Label's server."""


def modules() -> set[str]:
    """All modules by their place, ``__main__`` as "main"."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {path.relative_to(PACKAGE).with_suffix("").as_posix().replace("__main__", "main") for path in paths}


def test_files() -> set[str]:
    """All test files by their place, but for those apart."""
    paths = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    return {path.with_suffix("").as_posix() for path in paths if path.parts[0] not in APART}


test_files.__test__ = False  # type: ignore[attr-defined]


def is_of(test: str, module: str) -> bool:
    folder, _, name = module.rpartition("/")
    own = f"{folder}/test_{name}".lstrip("/")
    return test == own or test.startswith(f"{own}_")


def test_every_module_has_its_tests() -> None:
    tests = test_files()
    without = {module for module in modules() if not any(is_of(test, module) for test in tests)} - {"main"}
    assert without == set(ELSEWHERE)
    assert [test for test in ELSEWHERE.values() if not (TESTS / f"{test}.py").is_file()] == []


def test_every_test_has_its_module() -> None:
    known = modules()
    without = {test for test in test_files() if not any(is_of(test, module) for module in known)}
    assert without == set(WITHOUT_MODULE)


def test_folders_apart_are_there() -> None:
    assert [name for name in APART if not list((TESTS / name).rglob("test_*.py"))] == []
