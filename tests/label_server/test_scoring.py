# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the app's scoring makes of images that fail, in MONAI Label's environment but without a server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.label_server

SCRIPT = """
import json, logging, sys
from types import SimpleNamespace
import requests
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.strategies import AnomalyScoring, HighestScore, MostDiverse, MostUncertain
from monailabel.interfaces.exception import ImageNotFoundException

logging.basicConfig(stream=sys.stderr)
FAILURES = {
    "a_itk": RuntimeError("patient 1.2.3"),
    "b_status": requests.HTTPError("404 for http://archive/1.2.3", response=SimpleNamespace(status_code=404)),
    "c_file": OSError("patient 1.2.3"),
    "d_absent": IndexError("1.2.3"),
    "e_connection": requests.ConnectionError("http://archive/1.2.3"),
    "f_slow": requests.Timeout("http://archive/1.2.3"),
    "g_damaged": UnreadableInputError("Cannot read 'g': damaged."),
    "i_unknown": IndexError("1.2.3"),
    "k_busy": requests.HTTPError("503 for http://archive/1.2.3", response=SimpleNamespace(status_code=503)),
}

class Store:
    def __init__(self):
        self.info = {name: {} for name in [*FAILURES, "h_good", "j_good", "l_refused"]}
    def get_unlabeled_images(self):
        return list(self.info)
    def get_image_info(self, name):
        return self.info[name]
    def get_image_uri(self, name):
        if name in FAILURES:
            raise FAILURES[name]
        return name
    def refresh(self):
        pass
    def update_image_info(self, name, info):
        if name == "i_unknown":
            raise ImageNotFoundException(name)
        self.info[name].update(info)

class Model:
    prompts_digest = "0123"
    def image_threshold(self):
        return 0.5
    def predict(self, path, preset, device):
        if path == "j_good" and device == "little":
            raise MemoryError
        if device == "absent":
            raise RuntimeError("Invalid device string")
        if path == "l_refused":
            raise UnreadableInputError("Cannot read 'l': its slices have gaps.")
        return SimpleNamespace(anomaly_score=0.25, slice_index=2, descriptor=[0.5], prompts="0123")

class Labelled:
    def get_unlabeled_images(self, label_tag, labels):
        return []
    def get_labeled_images(self):
        return ["a"]
    def get_image_info(self, name):
        return {"anomaly_descriptor": [0.5], "anomaly_score": 0.5}

store = Store()
try:
    AnomalyScoring(Model())({"device": "absent"}, store)
except RuntimeError as error:
    told, marked = str(error), [name for name, info in store.info.items() if name[2:] == "good" and info]
store = Store()
runs = [AnomalyScoring(Model())(request, store) for request in ({"device": "little"}, {})]
offered = [strategy({}, Labelled()) for strategy in (HighestScore(), MostUncertain(Model()), MostDiverse())]
print(json.dumps({"runs": runs, "info": store.info, "told": told, "marked": marked, "offered": offered}))
"""


def test_images_that_fail_do_not_stop_the_others(label_python: Path) -> None:
    command = [str(label_python), "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    first, second = result["runs"]
    assert (first["total"], first["executed"], first["failed"]) == (12, 12, 11)
    # What failed for good is passed over; where nothing answered, memory was short, or nothing is known of the image,
    # it is tried again.
    assert (second["executed"], second["skipped"], second["failed"]) == (5, 7, 4)
    # A fault of the server says nothing of the images.
    assert result["told"] == "Invalid device string"
    assert result["marked"] == []
    info = result["info"]
    for name in ("a_itk", "b_status", "c_file", "d_absent", "g_damaged", "l_refused"):
        assert info[name] == {"anomaly_score": None, "anomaly_prompts": "0123"}
    for name in ("e_connection", "f_slow", "k_busy"):
        assert info[name] == {}
    for name in ("h_good", "j_good"):
        assert info[name]["anomaly_score"] == 0.25
    assert "1.2.3" not in done.stderr
    assert "An image cannot be scored: Cannot read 'l': its slices have gaps." in done.stderr
    assert result["offered"] == [None, None, None]  # every image has its label
