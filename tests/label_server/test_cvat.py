# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CVAT's side: the handler that MONAI Label ships for CVAT's serverless functions, run against our server.

CVAT and nuclio are not there; the handler gets a context that stands in for nuclio's.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from monai_anomalyclip.cli import main
from monai_anomalyclip.demo.phantoms import sample_phantom

pytestmark = pytest.mark.label_server

REPOSITORY = Path(__file__).parents[2]
HANDLER = Path("monailabel/plugins/cvat/detector.py")
SHAPE = (slice(0, 96), slice(0, 112))  # not square, so that exchanged axes show
Start = Callable[..., Any]

# What nuclio gives a function: a logger, room for its own data, and a class for its answers.
_CALL = """
import base64, importlib.util, json, logging, sys
from types import SimpleNamespace
spec = importlib.util.spec_from_file_location("detector", sys.argv[1])
detector = importlib.util.module_from_spec(spec)
spec.loader.exec_module(detector)
context = SimpleNamespace(logger=logging.getLogger(), user_data=SimpleNamespace(), Response=lambda **answer: answer)
detector.init_context(context)
event = SimpleNamespace(body={"image": base64.b64encode(open(sys.argv[2], "rb").read()).decode()})
print("ANSWER" + json.dumps(detector.handler(context, event)))
"""


def polyps(count: int) -> list[int]:
    """Seeds of endoscopy-like pictures with a polyp that the demonstration's backbone finds well."""
    found = []
    seed = 2**33
    while len(found) < count:
        phantom = sample_phantom("endoscopy", True, seed)
        if phantom.kind == "polyp" and phantom.mask[SHAPE].sum() > 400:
            found.append(seed)
        seed += 1
    return found


@pytest.fixture(scope="module")
def server(label_server: Start, untuned_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server whose prompts were tuned on corrected pictures."""
    root = tmp_path_factory.mktemp("cvat")
    bundle = untuned_bundle(root)
    assert main(["label-app", str(root / "app"), "--bundle", str(bundle)]) == 0
    (root / "studies").mkdir()
    for seed in polyps(4):
        for name, anomalous in (("polyp", True), ("normal", False)):
            phantom = sample_phantom("endoscopy", anomalous, seed)
            Image.fromarray(phantom.image[SHAPE]).save(root / "studies" / f"{name}{seed}.png")
            Image.fromarray(phantom.mask[SHAPE].astype(np.uint8) * 255).save(root / f"{name}{seed}.png")
    server = label_server(root / "app", root / "studies")
    for picture in (root / "studies").glob("*.png"):
        server.save_label(picture.stem, root / picture.name)
    assert server.train("anomaly", max_epochs=20)["improved"]
    return server


@pytest.fixture(scope="module")
def handled(label_python: Path, server: Any) -> Callable[[Path], list[dict[str, Any]]]:
    """Calls CVAT's handler for a picture."""
    handler = label_python.parents[1] / HANDLER
    if not handler.is_file():
        pytest.skip(f"MONAI Label is installed without its {HANDLER}")

    def call(picture: Path) -> list[dict[str, Any]]:
        environment = {**os.environ, "MONAI_LABEL_SERVER": server.url, "MONAI_LABEL_MODEL": "anomaly_polygons"}
        done = subprocess.run(
            [str(label_python), "-c", _CALL, str(handler), str(picture)],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.partition("ANSWER")[2])
        assert (answer["status_code"], answer["content_type"]) == (200, "application/json")
        shapes: list[dict[str, Any]] = json.loads(answer["body"])
        return shapes

    return call


def test_polygons_outline_the_mask(
    server: Any, handled: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    phantom = sample_phantom("endoscopy", True, polyps(6)[-1])
    picture = tmp_path / "frame.jpg"
    Image.fromarray(phantom.image[SHAPE]).save(picture, quality=95)
    shapes = handled(picture)
    assert shapes
    assert {(shape["type"], shape["label"]) for shape in shapes} == {("polygon", "anomaly")}
    canvas = Image.new("L", (112, 96))
    for shape in shapes:
        ImageDraw.Draw(canvas).polygon(shape["points"], fill=1, outline=1)
    drawn = np.asarray(canvas).astype(bool)
    content = server.infer_file("anomaly", picture, "image", result_extension=".png")
    (tmp_path / "mask.png").write_bytes(content)
    mask = np.asarray(Image.open(tmp_path / "mask.png")).astype(bool)
    assert 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()) > 0.95
    lesion = phantom.mask[SHAPE]
    assert 2 * (drawn & lesion).sum() / (drawn.sum() + lesion.sum()) > 0.3


def test_clean_picture_has_no_polygons(handled: Callable[[Path], list[dict[str, Any]]], tmp_path: Path) -> None:
    picture = tmp_path / "frame.jpg"
    Image.fromarray(sample_phantom("endoscopy", False, polyps(6)[-1]).image[SHAPE]).save(picture, quality=95)
    assert handled(picture) == []
