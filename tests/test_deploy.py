# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Without the App SDK what is said, and what ours does within a stand-in for it; with the real one
``pytest -n 0 -m nightly tests/test_deploy.py``.
"""

from __future__ import annotations

import importlib.util
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pydicom
import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY, Predictor, deploy, predict
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


class StandIn:
    """An operator of the App SDK: told of its ports when it is made."""

    def __init__(self, fragment: Any, *args: Any, name: str, **settings: Any) -> None:
        self.name, self.settings = name, settings
        self.taken: list[str] = []
        self.given: list[str] = []
        self.setup(self)

    def setup(self, spec: Any) -> None:
        """As `spec` it notes the ports."""

    def input(self, name: str) -> None:
        self.taken.append(name)

    def output(self, name: str) -> SimpleNamespace:
        self.given.append(name)
        return SimpleNamespace(condition=lambda _: None)


class Loader(StandIn):
    def setup(self, spec: Any) -> None:
        spec.output("dicom_study_list")


class Selector(StandIn):
    def setup(self, spec: Any) -> None:
        spec.input("dicom_study_list")
        spec.output("study_selected_series_list")


class StandInApplication:
    """Runs its last operator on what lies in the folder of the command line, each subfolder a series of one study."""

    emitted: ClassVar[list[tuple[dict[str, Any], str]]] = []

    def __init__(self) -> None:
        self.argv = sys.argv
        self.flows: list[tuple[Any, Any, set[tuple[str, str]]]] = []

    @staticmethod
    def init_app_context(argv: list[str]) -> SimpleNamespace:
        given = dict(zip(argv[1::2], argv[2::2], strict=True))
        return SimpleNamespace(input_path=given["-i"], output_path=given["-o"], model_path=given["-m"])

    def add_flow(self, source: Any, target: Any, ports: set[tuple[str, str]]) -> None:
        assert all(one in source.given and other in target.taken for one, other in ports)
        self.flows.append((source, target, ports))

    def run(self) -> None:
        self.compose()  # type: ignore[attr-defined]
        (loader, selector, _), (same, operator, _) = self.flows
        assert same is selector
        folder = loader.settings["input_folder"]
        study = SimpleNamespace(selected_series=[chosen(path) for path in sorted(folder.iterdir())])
        output = SimpleNamespace(emit=lambda value, port: self.emitted.append((value, port)))
        operator.compute(SimpleNamespace(receive=lambda port: [study]), output, None)


def chosen(folder: Path) -> SimpleNamespace:
    datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    instances = [SimpleNamespace(get_native_sop_instance=lambda one=one: one) for one in datasets]
    series = SimpleNamespace(SeriesInstanceUID=datasets[0].SeriesInstanceUID, get_sop_instances=lambda: instances)
    return SimpleNamespace(series=series)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[dict[str, Any], str]]]:
    """Starts the application with a stand-in for the App SDK; returns what was emitted."""
    names = {
        "conditions": {"CountCondition": lambda fragment, count: count},
        "core": {"Application": StandInApplication, "ConditionType": SimpleNamespace(NONE=None), "Operator": StandIn},
        "operators.dicom_data_loader_operator": {"DICOMDataLoaderOperator": lambda app, once, **it: Loader(app, **it)},
        "operators.dicom_series_selector_operator": {"DICOMSeriesSelectorOperator": Selector},
    }
    for name, content in {"": {}, "operators": {}, **names}.items():
        module = ModuleType(".".join(filter(None, ("monai.deploy", name))))
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(StandInApplication, "emitted", [])

    def run(study: Path, results: Path, bundle: Path) -> list[tuple[dict[str, Any], str]]:
        monkeypatch.setattr(sys, "argv", ["app", "-i", str(study), "-o", str(results), "-m", str(bundle)])
        runpy.run_path(deploy.__file__, run_name="__main__")
        return StandInApplication.emitted

    return run


def test_each_series_in_a_folder_of_its_own(
    start: Callable[..., Any], predictor: Predictor, face_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in "ab":
        write_dicom_series(tmp_path / "study" / name, 2)
    for path in (tmp_path / "study" / "b").iterdir():
        image = pydicom.dcmread(path)
        image.SeriesInstanceUID = "1.2.3"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{image.InstanceNumber}"
        image.PixelData = image.pixel_array[::-1].tobytes()
        image.save_as(path)
    ((predictions, port),) = start(tmp_path / "study", tmp_path / "results", face_bundle)
    assert port == "predictions"
    for number, name in enumerate("ab", start=1):
        expected = predictor(tmp_path / "study" / name)
        uid = pydicom.dcmread(next((tmp_path / "study" / name).iterdir())).SeriesInstanceUID
        assert predictions[uid].anomaly_score == pytest.approx(expected.anomaly_score, abs=1e-6)
        assert f"Series {number}: anomaly score {expected.anomaly_score:.3f}. {RESEARCH_USE_ONLY}" in caplog.text
        (seg,) = (tmp_path / "results" / f"series_0{number}").glob("*_seg.dcm")
        assert pydicom.dcmread(seg).ReferencedSeriesSequence[0].SeriesInstanceUID == uid
    assert len({one.anomaly_score for one in predictions.values()}) == 2


def test_one_series_that_fails_does_not_stop_the_others(
    start: Callable[..., Any], face_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        write_dicom_series(tmp_path / "study" / name, 2)
    for path in (tmp_path / "study" / "a").iterdir():
        image = pydicom.dcmread(path)
        image.PixelData = image.PixelData[:-9]
        image.save_as(path)
    with pytest.raises(RuntimeError, match=r"^1 of 2 series could not be scored\.$"):
        start(tmp_path / "study", tmp_path / "results", face_bundle)
    assert "Series 1 of 2 could not be scored: " in caplog.text
    ((predictions, _),) = StandInApplication.emitted
    assert len(predictions) == 1
    assert [path.parent.name for path in (tmp_path / "results").rglob("*_seg.dcm")] == ["series_02"]


def test_nothing_to_score(start: Callable[..., Any], face_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    with pytest.raises(RuntimeError, match="No series was selected"):
        start(tmp_path / "study", tmp_path / "results", face_bundle)


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
