# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Requests as the clients of MONAI Label 0.8.5 send them, which the checks of hostile ones must let through."""

from __future__ import annotations

import json
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.cli import main
from monai_anomalyclip.demo.phantoms import sample_phantom

pytestmark = pytest.mark.label_server

VIEWER = "http://viewer.example.org:3000"
Start = Callable[..., Any]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies") / "polyp.png"
    Image.fromarray(sample_phantom("endoscopy", True, 4).image).save(path)
    return path


@pytest.fixture(scope="module")
def server(
    label_server: Start, untuned_bundle: Callable[..., Path], picture: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    root = tmp_path_factory.mktemp("ordinary")
    app = root / "app"
    assert main(["label-app", str(app), "--bundle", str(untuned_bundle(root))]) == 0
    return label_server(app, picture.parent, origins=VIEWER, hosts="labels.example.org")


def query(path: str, **values: str) -> str:
    return f"{path}?{urllib.parse.urlencode(values)}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:{port}"},
        {"Host": "[::1]:{port}"},
        {"Host": "labels.example.org"},
        {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_own_pages_and_links_to_them(server: Any, headers: dict[str, str]) -> None:
    for page in ("/ohif/", "/", "/info/"):
        status, _, answered = server.ask("GET", page, headers=headers)
        assert status == 200
        assert "access-control-allow-origin" not in answered


def test_viewer_that_is_configured(server: Any) -> None:
    status, _, answered = server.ask("GET", "/info/", headers={"Origin": VIEWER})
    assert (status, answered["access-control-allow-origin"]) == (200, VIEWER)
    assert "access-control-allow-credentials" not in answered
    preflight = {"Origin": VIEWER, "Access-Control-Request-Method": "PUT"}
    status, _, answered = server.ask("OPTIONS", "/datastore/label", headers=preflight)
    assert (status, answered["access-control-allow-origin"]) == (200, VIEWER)


def test_slicer_asks_for_a_volume_that_is_not_in_the_studies(server: Any, picture: Path) -> None:
    """It sends the file's whole path, and what its user calls the volume for the name of the image."""
    status, content = server.send_file("PUT", "/session/", "files", picture, name=str(picture), client_id="user-xyz")
    assert status == 200
    session = json.loads(content)["session_id"]
    assert server.ask("GET", f"/session/{session}")[0] == 200
    status, downloaded, _ = server.ask("GET", f"/session/{session}?image=true")
    assert (status, downloaded) == (200, picture.read_bytes())
    params = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz", "device": "cpu"}
    body = urllib.parse.urlencode({"params": json.dumps(params)}).encode()
    target = query("/infer/anomaly", image="3: T1/axial", session_id=session)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.ask("POST", target, body, form)[0] == 200
    assert server.ask("DELETE", f"/session/{session}")[0] == 200
    assert server.ask("GET", f"/session/{session}")[0] == 404


def test_series_as_a_zip_file(server: Any, picture: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "series.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(picture, "series/1.png")
        archive.mkdir("empty")
    status, content = server.send_file("PUT", "/session/?uncompress=true", "files", tmp_path / "series.zip")
    assert status == 200
    unpacked = Path(json.loads(content)["session_info"]["image"])
    assert (unpacked / "series" / "1.png").read_bytes() == picture.read_bytes()
    assert (unpacked / "empty").is_dir()


def test_slides_plugin_gets_the_polygons_of_a_picture(server: Any) -> None:
    body = json.dumps({"level": 0, "location": [0, 0], "size": [64, 64], "params": {"threshold": 0.2}}).encode()
    target = query("/infer/wsi/anomaly_polygons", image="polyp", output="json")
    status, content, _ = server.ask("POST", target, body, {"Content-Type": "application/json"})
    assert status == 200
    assert json.loads(content)["threshold"] == 0.2


def test_result_that_its_kind_of_file_cannot_hold_is_refused(server: Any) -> None:
    with pytest.raises(AssertionError, match=r"400.*cannot be written as '.png'"):
        server.infer("anomaly_heatmap", "polyp", "image", result_extension=".png")


def test_image_is_added_labelled_tuned_on_and_removed(server: Any, picture: Path, tmp_path: Path) -> None:
    name = "T1 axial 3"
    info = urllib.parse.urlencode({"info": '{"read_by": "somebody"}'}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.ask("PUT", query("/datastore/image/info", image="polyp"), info, form)[0] == 200
    assert server.get(query("/datastore/image/info", image="polyp"))["read_by"] == "somebody"
    status, _ = server.send_file("PUT", query("/datastore/", image=name), "file", picture, str(picture), client_id="x")
    assert status == 200
    mask = tmp_path / "mask.png"
    Image.fromarray(np.zeros(Image.open(picture).size[::-1], dtype=np.uint8)).save(mask)
    assert server.save_label("polyp", mask, label_info=[{"name": "anomaly", "idx": 1}])["normal"] is True
    server.infer("anomaly", name, save_label=True, label_tag="anomaly_v1")
    objects = server.get("/datastore/?output=all")["objects"]
    assert {image: set(entry["labels"]) for image, entry in objects.items()} == {
        "polyp": {"final"},
        name: {"anomaly_v1"},
    }
    assert server.get(query("/datastore/label/info", label=name, tag="anomaly_v1"))["model"] == "anomaly"
    assert server.ask("GET", query("/datastore/dataset"))[0] == 200
    # OHIF trains all models, with the options of each by its name.
    assert server.post_json("/train/?run_sync=true", {"anomaly": {"max_epochs": 1}})["anomaly"]["result"]["images"] == 1
    assert server.ask("DELETE", query("/datastore/label", id=name, tag="anomaly_v1"))[0] == 200
    assert server.ask("DELETE", query("/datastore/image", id=name))[0] == 200
    assert not (picture.parent / f"{name}.png").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("origins", "*", "An origin must be"),
        ("hosts", "http://labels.example.org", "A host must be"),
        ("max_upload_mib", "many", "max_upload_mib must be"),
        ("precision", "half", "precision='half' is not one of"),
    ],
)
def test_server_does_not_start_with_options_that_are_none(
    label_server: Start, server: Any, tmp_path: Path, option: str, value: str, said: str
) -> None:
    app = next(Path(part) for part in server.process.args if part.endswith("/app"))
    with pytest.raises(AssertionError, match=said):
        label_server(app, tmp_path, **{option: value})
