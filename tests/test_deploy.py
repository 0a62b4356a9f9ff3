# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Without the App SDK what is said; with it, ``pytest -n 0 -m nightly tests/test_deploy.py``, a real application."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from monai_anomalyclip import deploy, predict
from monai_anomalyclip.demo.volumes import write_dicom_series

HAS_SDK = importlib.util.find_spec("monai.deploy") is not None


@pytest.mark.skipif(HAS_SDK, reason="the App SDK is installed")
@pytest.mark.parametrize(
    "make",
    [lambda: deploy.AnomalyOperator(None, bundle="anomalyclip_demo", output_folder="x"), deploy.AnomalyApplication],
    ids=["operator", "application"],
)
def test_without_the_sdk(make: Callable[[], object]) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install monai-deploy-app-sdk"):
        make()


@pytest.fixture
def bundle(untuned_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    return untuned_bundle(tmp_path / "bundles")


def run(study: Path, results: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
    words = ["-i", str(study), "-o", str(results), "-m", str(bundle)]
    return subprocess.run(
        [sys.executable, "-m", "monai_anomalyclip.deploy", *words], capture_output=True, text=True, cwd=results.parent
    )


@pytest.mark.nightly
@pytest.mark.skipif(not HAS_SDK, reason="the App SDK is not installed (extra deploy)")
def test_application_writes_what_predict_writes(bundle: Path, tmp_path: Path) -> None:
    study, results = tmp_path / "study", tmp_path / "results"
    write_dicom_series(study, 3)
    results.mkdir()
    done = run(study, results, bundle)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    [expected] = predict(study, tmp_path / "predict", bundle, device="cpu").inputs
    assert f"anomaly score {expected.anomaly_score:.3f}" in done.stdout + done.stderr
    [seg] = (results / "series_01").glob("*_seg.dcm")
    [same] = (tmp_path / "predict").rglob("*_seg.dcm")
    ours, theirs = pydicom.dcmread(seg), pydicom.dcmread(same)
    np.testing.assert_array_equal(ours.pixel_array, theirs.pixel_array)
    assert ours.StudyInstanceUID == theirs.StudyInstanceUID
    places = [
        [list(frame.PlanePositionSequence[0].ImagePositionPatient) for frame in each.PerFrameFunctionalGroupsSequence]
        for each in (ours, theirs)
    ]
    assert places[0] == places[1]
    [report] = (results / "series_01").glob("*_sr.dcm")
    [same] = (tmp_path / "predict").rglob("*_sr.dcm")
    assert numbers(pydicom.dcmread(report)) == numbers(pydicom.dcmread(same)) != []


def numbers(dataset: pydicom.Dataset) -> list[str]:
    """All measured values of a structured report, in order."""
    return [str(element.value) for element in dataset.iterall() if element.keyword == "NumericValue"]


@pytest.mark.nightly
@pytest.mark.skipif(not HAS_SDK, reason="the App SDK is not installed (extra deploy)")
def test_a_series_that_cannot_be_scored_fails_the_run(bundle: Path, tmp_path: Path) -> None:
    study, results = tmp_path / "study", tmp_path / "results"
    write_dicom_series(study, 3)
    report = pydicom.dcmread(next(study.glob("*")))
    for file in study.glob("*"):
        report = pydicom.dcmread(file)
        report.PixelData = report.PixelData[: len(report.PixelData) // 2]
        report.save_as(file)
    results.mkdir()
    done = run(study, results, bundle)
    assert done.returncode != 0
    assert "could not be scored" in done.stdout + done.stderr
    assert not list(results.rglob("*_seg.dcm"))
    assert json.dumps(str(tmp_path)) not in done.stdout
