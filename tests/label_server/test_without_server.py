# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the app's parts do of themselves, in MONAI Label's environment but without a server and an archive."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.label_server

SERIES = "1.2.3"
BEGIN = """
import asyncio, json, os, sys, tempfile
from types import SimpleNamespace
from fastapi import HTTPException

def told(call):
    try:
        return call()
    except (HTTPException, ValueError) as error:
        return [getattr(error, "status_code", 0), str(getattr(error, "detail", error))]
"""


def run(python: Path, script: str, folder: Path) -> Any:
    (folder / "tmp").mkdir()
    command = [str(python), "-W", "ignore", "-c", BEGIN + script]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


ARCHIVE = """
import requests
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monai_anomalyclip.label.checked_datastores import CheckedArchive

store = LocalDatastore(os.path.abspath("cache"))
store.__class__ = CheckedArchive
fetch = DICOMWebDatastore.get_image_uri

def refused(status):
    def answer(self, image_id):
        raise requests.HTTPError("for http://archive/1.2.3", response=SimpleNamespace(status_code=status))
    return answer

DICOMWebDatastore.get_image_uri = refused(404)
absent = told(lambda: store.get_image_uri("1.2.3"))
DICOMWebDatastore.get_image_uri = refused(503)
try:
    busy = store.get_image_uri("1.2.3")
except requests.HTTPError as error:
    busy = error.response.status_code
DICOMWebDatastore.get_image_uri = LocalDatastore.get_image_uri  # fetched already
store.save_label("1.2.3", "raw.bin", "final", {})
before = sorted(os.listdir(tempfile.gettempdir()))
LocalDatastore.save_label(store, "1.2.3", "draft.nii.gz", "draft", {})
final = told(lambda: store.remove_label("1.2.3", "final"))
there = os.path.exists("cache/labels/draft/1.2.3.nii.gz")
store.remove_label("1.2.3", "draft")
print(json.dumps({"absent": absent, "busy": busy, "left": before, "final": final, "kept": store.kept_labels(),
    "draft": [there, os.path.exists("cache/labels/draft/1.2.3.nii.gz")]}))
"""


def test_datastore_of_an_archive(label_python: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    volume = nib.nifti1.Nifti1Image(np.zeros((4, 3, 2), np.int16), affine)
    nib.loadsave.save(volume, tmp_path / "cache" / f"{SERIES}.nii.gz")
    nib.loadsave.save(volume, tmp_path / "draft.nii.gz")
    (tmp_path / "raw.bin").write_bytes(bytes(4 * 3 * 2))  # as OHIF sends the label of a normal study
    found = run(label_python, ARCHIVE, tmp_path)
    assert found["absent"] == [404, "The archive has no such series."]
    assert found["busy"] == 503  # which says nothing of the series
    assert found["kept"] == {SERIES: True}
    kept = nib.loadsave.load(tmp_path / "cache" / "labels" / "kept" / f"{SERIES}.nii.gz")
    assert (kept.shape, np.asarray(kept.dataobj).any()) == ((4, 3, 2), np.False_)
    np.testing.assert_allclose(kept.affine, affine)
    assert not [name for name in found["left"] if name.endswith(".nii.gz")]  # the raw bytes as a file of their own
    assert found["final"] == [400, "Final labels are removed in the archive, as segmentations."]
    assert found["draft"] == [True, False]


REQUESTS = """
import shutil
from fastapi import FastAPI
from monailabel.datastore.local import LocalDatastore
from monailabel.endpoints import infer
from monailabel.interfaces.exception import *
from monai_anomalyclip.label import server_checks
from monai_anomalyclip.label.app import AnomalyLabelApp
from monai_anomalyclip.label.archive_labels import answer_without_segmentation

application = FastAPI()
server_checks.guard_server(application, {})

def answered(error):
    answer = asyncio.run(application.exception_handlers[MONAILabelException](None, error))
    return [answer.status_code, json.loads(answer.body)["detail"]]

errors = [answered(error) for error in (
    ImageNotFoundException("/home/doe/1.2.3"), LabelNotFoundException("/home/doe/1.2.3"),
    MONAILabelException(MONAILabelError.INVALID_INPUT, "The input is none."))]
shutil.which = lambda name: None
graphics = told(lambda: server_checks._check_logs("/logs/gpu", {}))
other = SimpleNamespace(datastore=lambda: object(), _infers={})  # a datastore of MONAI Label's own, such as XNAT's
elsewhere = told(lambda: server_checks._check_infer(other, "anomaly", {"image": "../x"}, {}))

app = AnomalyLabelApp.__new__(AnomalyLabelApp)
app._sessions = None
plain = LocalDatastore(os.path.abspath("studies"))
images = [told(lambda: app.infer({"model": "anomaly", "image": image}, plain))
    for image in ("/etc/hostname", "../x", "server.log")]

answer_without_segmentation()
once = infer.send_response
answer_without_segmentation()
print(json.dumps({"errors": errors, "graphics": graphics, "elsewhere": elsewhere, "images": images,
    "sessions": app._load_sessions(False), "once": infer.send_response is once}))
"""


def test_requests_that_come_past_the_first_checks(label_python: Path, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "server.log").touch()
    found = run(label_python, REQUESTS, tmp_path)
    assert found["errors"] == [
        [404, "There is no such image or label."],
        [404, "There is no such image or label."],
        [400, "The input is none."],
    ]
    assert found["graphics"] == [404, "There is no nvidia-smi here."]
    assert "The image" in found["elsewhere"][1]
    paths, parents, beside = found["images"]
    assert paths == [400, "An image is named by its name in the studies, or sent along; paths are not taken."]
    assert parents[0] == 400
    assert "The image" in parents[1]
    assert "in which the server was started has a file of this name: start it elsewhere" in beside[1]
    assert found["sessions"] is None
    assert found["once"] is True


TASKS = """
from pathlib import Path
from monai_anomalyclip.label import tasks

class Model:
    prompts_path, prompts_digest, default_threshold, folder = "model.pt", "0123", 0.5, Path("model")
    saved = []
    def predict(self, path, preset, device):
        return SimpleNamespace(
            anomaly_score=0.25, slice_index=2, prompts="0123", p_value=0.05, doubts=("Ten normals are few.",))
    def save_prompts(self, network):
        self.saved.append(network)

class Task(tasks.MaskTask):
    def _result(self, prediction, options):
        return None, {}

def tuned(improved):
    report = SimpleNamespace(improved=improved, to_dict=lambda: {"improved": improved})
    tasks.tune_prompts = lambda *arguments, **options: ("network", report)
    result = tasks.PromptTuningTask(Model())({"device": "cpu"}, SimpleNamespace(datalist=lambda: []))
    return [result, len(Model.saved), json.loads(open("model/tuning.json").read())]

task = Task(Model())
print(json.dumps({"path": task.get_path(), "params": task({"image": "a.png", "device": "cpu"})[1],
    "worse": tuned(False), "better": tuned(True)}))
"""


def test_tasks(label_python: Path, tmp_path: Path) -> None:
    found = run(label_python, TASKS, tmp_path)
    assert found["path"] == "model.pt"
    assert {key: found["params"][key] for key in ("anomaly_score", "p_value", "doubts")} == {
        "anomaly_score": 0.25,
        "p_value": 0.05,
        "doubts": ["Ten normals are few."],
    }
    for improved, (result, saved, recorded) in ((False, found["worse"]), (True, found["better"])):
        assert result == recorded == {"improved": improved, "prompts": "0123"}
        assert saved == improved  # a loss that did not fall changes nothing
