# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.cli import main
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.demo.phantoms import sample_phantom
from monai_anomalyclip.export import read_description
from monai_anomalyclip.reference import NormalReference, make_encoder
from monai_anomalyclip.transforms import CLIPPreprocess, smooth_anomaly_map

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "export.md").read_text()
BUNDLE = "bundles/anomalyclip_demo"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, prompts: Path) -> Path:
    """A folder like a clone with a tuned demonstration, and a picture to score."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(REPOSITORY / BUNDLE / "configs", folder / BUNDLE / "configs")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    (folder / BUNDLE / "models").mkdir()
    shutil.copy(prompts, folder / BUNDLE / "models" / "model.pt")
    (folder / "frames").mkdir()
    Image.fromarray(sample_phantom("endoscopy", True, 5, 150).image).save(folder / "frames" / "frame.png")
    return folder


@pytest.fixture(scope="module")
def documented(clone: Path) -> Path:
    """The clone after every command of docs/export.md."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            for command in COMMANDS:
                program, *arguments = shlex.split(command)
                assert program == "monai-anomalyclip"
                assert main(arguments) == 0, command
    (clone / "shown.txt").write_text(shown.getvalue())
    return clone


def test_documented_commands(documented: Path) -> None:
    assert len(COMMANDS) == 6
    model = onnx.load(documented / BUNDLE / "models" / "anomalyclip.onnx")
    assert model.doc_string == RESEARCH_USE_ONLY
    assert (documented / "anomalyclip_int8.onnx").stat().st_size < model.ByteSize() / 2
    assert torch.export.load(documented / "anomalyclip.pt2").module()(torch.zeros(1, 3, 112, 112))[0].shape[-1] == 112


def test_what_the_export_prints(documented: Path) -> None:
    shown = (documented / "shown.txt").read_text()
    assert "anomalyclip.pt2: torch_export, image (B, 3, 112, 112), float32." in shown
    assert "anomalyclip.onnx: onnx, opset 18, image (B, 3, 112, 112), float32." in shown
    assert len(re.findall(r"^Difference from PyTorch on the CPU: map .* \(4 images\)", shown, re.MULTILINE)) == 4
    assert shown.count(RESEARCH_USE_ONLY) >= 3


def test_int8_of_the_demonstration(documented: Path) -> None:
    description = read_description(documented / "anomalyclip_int8.onnx")
    measured = description["agreement_int8"]
    # Bounds for this backbone and these pictures, about five times what was measured.
    assert 1e-5 < measured["map_mean"] < 0.02
    assert measured["score_max"] < 0.05
    assert description["agreement"]["map_max"] <= 1e-4
    model = onnx.load(documented / "anomalyclip_int8.onnx")
    # Four per block, one more in the three blocks with a second path, and two projections to the embedding.
    assert sum(node.op_type == "MatMulInteger" for node in model.graph.node) == 29
    assert description["precision"].startswith("29 linear layers in int8")
    assert any(
        list(tensor.dims)[1:] == [2] and tensor.data_type == onnx.TensorProto.FLOAT
        for tensor in model.graph.initializer
    )


def test_float16_of_the_demonstration(documented: Path) -> None:
    description = read_description(documented / "anomalyclip_float16.onnx")
    assert 1e-6 < description["agreement_float16"]["map_mean"] < 3e-4
    assert description["agreement_float16"]["score_max"] < 2e-3
    whole = (documented / BUNDLE / "models" / "anomalyclip.onnx").stat().st_size
    assert (documented / "anomalyclip_float16.onnx").stat().st_size < 0.55 * whole
    assert "Difference of float16 from PyTorch on the CPU: map " in (documented / "shown.txt").read_text()


def test_predict_on_onnx_equals_predict_on_pytorch(documented: Path, prompts: Path, tmp_path: Path) -> None:
    command = ["predict", str(documented / "frames"), "-o", str(tmp_path), "--bundle", str(documented / BUNDLE)]
    assert main([*command, "--prompts", str(prompts), "--device", "cpu"]) == 0
    folders = (documented / "results", tmp_path, documented / "results_openvino")
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    (on_onnx,), (on_pytorch,), (by_openvino,) = (result["inputs"] for result in results)
    assert by_openvino["anomaly_score"] == pytest.approx(on_pytorch["anomaly_score"], abs=1e-4)
    assert on_onnx["anomaly_score"] == pytest.approx(on_pytorch["anomaly_score"], abs=1e-4)
    assert on_onnx["status"] == "ok"
    assert results[0]["model"]["settings"]["exported_prompts_sha256"] == results[1]["model"]["prompts_sha256"]
    assert results[0]["model"]["backbone_sha256"] == results[1]["model"]["backbone_sha256"]


def test_documented_python(
    documented: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It needs neither torch nor this package, and computes what they compute."""
    (example,) = blocks("python")
    assert not re.search("torch|monai", example.split("session =")[0])
    monkeypatch.chdir(documented)
    names: dict[str, object] = {}
    exec(compile(example, "docs/export.md", "exec"), names)
    assert re.fullmatch(r"anomaly score \d\.\d{3}, map \(112, 112\), highest \d\.\d{3}\n", capsys.readouterr().out)
    network = demo_network(deep_prompt_depth=4)
    network.load_prompts(BUNDLE + "/models/model.pt")
    image = CLIPPreprocess(112)(Image.open("frames/frame.png"))[None]
    np.testing.assert_allclose(names["image"], image, rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = network.predict(image)
    np.testing.assert_allclose(names["score"], expected["anomaly_score"], rtol=0, atol=1e-4)
    smooth = smooth_anomaly_map(expected["anomaly_map"], 1.0)[0, 0]
    np.testing.assert_allclose(names["smooth"], smooth, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "exists.onnx"], "exists; give another name or --force"),
        (["-o", "model.onnx", "--prompts", "absent.pt"], "There are no prompts at"),
        (["-o", "model.onnx", "--image-size", "100"], "image size 100 is no multiple of the patch size 8"),
        (["-o", "model.onnx", "--format", "torch_export"], "needs an output that ends in .pt2"),
        (["-o", "model.pt2", "--int8"], "INT8 is made by onnxruntime"),
        (["-o", "model.engine"], "must end in .onnx"),
        (["-o", "model.onnx", "--bundle", "absent"], "There is no bundle at 'absent'"),
    ],
)
def test_refusals_are_one_sentence_and_leave_nothing(
    arguments: list[str],
    said: str,
    clone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exists.onnx").write_text("precious")
    assert main(["export", "--bundle", str(clone / BUNDLE), *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("exists.onnx", "precious")]


def test_warning_of_a_poor_int8_model(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {"images": 4, "map_mean": 0.03, "map_max": 0.5, "score_max": 0.01}
    exact = {"images": 4, "map_mean": 0.0, "map_max": 0.0, "score_max": 0.0}
    description = {"format": "onnx", "opset": 18, "image_size": 112, "precision": "int8", "agreement": exact}
    module = import_module("monai_anomalyclip.export.exporting")  # the package's attribute is the function
    monkeypatch.setattr(module, "export_model", lambda *_, **__: {**description, "agreement_int8": measured})
    command = ["export", "--bundle", str(clone / BUNDLE), "-o", str(tmp_path / "model.onnx"), "--int8"]
    assert main(command) == 0
    assert "Warning: that is more than 0.02 for the mean of the map" in capsys.readouterr().out
    measured["map_mean"] = 0.01
    assert main(command) == 0
    assert "Warning" not in capsys.readouterr().out


def test_a_reference_is_exported_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its encoder from a file; what belongs to bundles is refused."""
    torch.manual_seed(0)
    weights, file = tmp_path / "w.pth", tmp_path / "my.reference"
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), weights)
    encoder = make_encoder("timm:resnet10t", weights)
    reference = NormalReference.build([torch.rand(3, 64, 64) for _ in range(3)], encoder=encoder)
    reference.save(file)
    words = ["export", "--reference", str(file), "--encoder-weights", str(weights), "-o", str(tmp_path / "r.onnx")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    side = read_description(tmp_path / "r.onnx")["image_size"]
    assert f"r.onnx: onnx, opset 18, image (B, 3, {side}, {side}) in [0, 1]." in shown
    assert re.search(r"^Difference from PyTorch on the CPU: map .* \(\d+ images\)", shown, re.MULTILINE)
    assert RESEARCH_USE_ONLY in shown
    session = onnxruntime.InferenceSession(tmp_path / "r.onnx")
    image = torch.rand(1, 3, side, side)
    (score,) = session.run(["anomaly_score"], {"image": image.numpy()})
    assert score.item() == pytest.approx(reference.score(image[0]).score, abs=2e-4)
    before = (tmp_path / "r.onnx").read_bytes()
    for more in (["--int8"], ["--bundle", BUNDLE], ["--image-size", "64"]):
        assert main([*words, "--force", *more]) == 1
        assert "A reference is exported as it is: leave the options of bundles out." in capsys.readouterr().err
    assert (tmp_path / "r.onnx").read_bytes() == before


def test_what_has_no_frozen_clip_is_not_exported(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "other.json"
    nothing = {"network_def": {"_target_": "torch.nn.Identity"}, "check_prompts": 1, "load_prompts": 1}
    overlay.write_text(json.dumps(nothing))
    words = ["export", "--bundle", str(clone / BUNDLE), "-o", str(tmp_path / "m.onnx"), "--config", str(overlay)]
    assert main(words) == 1
    assert "Only AnomalyCLIP and its CLIP baselines can be exported, not Identity." in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()
