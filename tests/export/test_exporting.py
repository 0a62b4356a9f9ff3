# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.experiments.baselines import VAND, CoOp, WinCLIP
from monai_anomalyclip.export import agreement as agreement_module
from monai_anomalyclip.export import export_model, onnx_file, read_description
from monai_anomalyclip.export import onnx_file as int8_module
from monai_anomalyclip.networks import AnomalyCLIP, read_prompts

Exported = Callable[..., tuple[Path, dict[str, Any]]]


def run(path: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With nothing but onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    anomaly_map, score = session.run(["anomaly_map", "anomaly_score"], {"image": image})
    return anomaly_map, score


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_equals_pytorch(exported: Exported, tiny: AnomalyCLIP, batch: int) -> None:
    path, _ = exported("model.onnx")
    image = torch.randn(batch, 3, 84, 84)
    anomaly_map, score = run(path, image.numpy())
    with torch.no_grad():
        expected = tiny.predict(image)
    assert anomaly_map.shape == (batch, 1, 84, 84)
    assert score.shape == (batch,)
    np.testing.assert_allclose(anomaly_map, expected["anomaly_map"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(score, expected["anomaly_score"], rtol=0, atol=1e-4)
    assert len(np.unique(anomaly_map)) > 1000  # no constant


def test_onnx_equals_the_published_code(exported: Exported, reference: dict[str, np.ndarray]) -> None:
    """Numbers recorded from the authors' implementation."""
    path, _ = exported("model.onnx")
    anomaly_map, score = run(path, reference["image"])
    recorded = reference["anomaly_map_raw"] / 4  # the recorded map is the sum over the four layers
    np.testing.assert_allclose(anomaly_map[:, 0], recorded, rtol=0, atol=1e-4)
    np.testing.assert_allclose(score, reference["image_score"], rtol=0, atol=1e-4)


def test_graph_is_typed_and_checked_by_onnx(exported: Exported) -> None:
    path, _ = exported("model.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "image": ["batch", 3, 84, 84],
        "anomaly_map": ["batch", 1, 84, 84],
        "anomaly_score": ["batch"],
    }
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_metadata_read_with_onnx_alone(exported: Exported, tiny: AnomalyCLIP, tiny_prompts: Path) -> None:
    path, returned = exported("model.onnx")
    model = onnx.load(path)
    stored = {entry.key: entry.value for entry in model.metadata_props}
    description = json.loads(stored["monai_anomalyclip"])
    assert description == json.loads(json.dumps(returned))
    assert stored["notice"] == model.doc_string == description["notice"] == RESEARCH_USE_ONLY
    assert (model.producer_name, model.producer_version) == ("monai_anomalyclip", __version__)
    assert description["backbone"] == "custom"
    assert description["backbone_sha256"] == tiny.backbone_sha256
    assert description["prompts_sha256"] == read_prompts(tiny_prompts).sha256  # of the tensors, whatever the file
    assert description["image_size"] == 84
    assert description["opset"] == 18
    assert description["postprocessing"]["sigma"] == 1.0
    assert description["preprocessing"]["mean"] == pytest.approx([0.4815, 0.4578, 0.4082], abs=1e-4)
    assert description["preprocessing"]["std"] == pytest.approx([0.2686, 0.2613, 0.2758], abs=1e-4)
    assert 0 <= description["agreement"]["map_max"] <= 1e-4


def test_torch_export_reloaded(exported: Exported, tiny: AnomalyCLIP) -> None:
    path, description = exported("model.pt2")
    loaded = torch.export.load(path)
    for batch in (1, 3):
        image = torch.randn(batch, 3, 84, 84)
        anomaly_map, score = loaded.module()(image)
        with torch.no_grad():
            expected = tiny.predict(image)
        torch.testing.assert_close(anomaly_map, expected["anomaly_map"], rtol=0, atol=1e-4)
        torch.testing.assert_close(score, expected["anomaly_score"], rtol=0, atol=1e-4)
    assert read_description(path) == json.loads(json.dumps(description))
    assert description["format"] == "torch_export"
    assert not any("token_embedding" in name for name in loaded.state_dict)


@pytest.mark.parametrize("method", [CoOp, VAND])
def test_baselines(method: Any, small_config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="random weights"):
        network = method(small_config, None, image_size=42)
    description = export_model(network, tmp_path / "model.pt2")
    assert description["settings"]["method"] == method.__name__
    assert description["prompts_sha256"] is None


def test_winclip_is_refused(small_config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="random weights"):
        network = WinCLIP(small_config, None, image_size=42)
    with pytest.raises(ValueError, match="WinCLIP cannot be exported: its windows"):
        export_model(network, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_a_model_that_differs_gets_no_name(small: AnomalyCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("precious")
    monkeypatch.setattr(agreement_module, "EXACT", -1.0)
    with pytest.raises(ValueError, match=r"differs from PyTorch by more than .*nothing is kept"):
        export_model(small, path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "precious"


def test_a_package_that_is_missing_is_named(
    small: AnomalyCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RuntimeError, match="needs the package onnxscript, which is not installed: pip install onnx"):
        export_model(small, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_traced_is_one_sentence(small: AnomalyCLIP, tmp_path: Path) -> None:
    class Untraceable(AnomalyCLIP):
        def predict(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = image.mean(dim=(1, 2, 3)) if image.sum() > 0 else image.amax(dim=(1, 2, 3))
            return {"anomaly_map": image[:, :1], "anomaly_score": scores}

    small.__class__ = Untraceable
    with pytest.raises(ValueError, match="Untraceable cannot be exported with a free batch size: ") as caught:
        export_model(small, tmp_path / "model.pt2")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_another_size_and_opset_in_int8_with_weights_beside_the_model(
    small: AnomalyCLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 1000)
    monkeypatch.setattr(int8_module, "LARGEST_FILE", 1000)
    path, old, other = (tmp_path / name for name in ("model.onnx", "model.0123456789ab.data", "model.old.data"))
    for file in (path, old, other):
        file.write_text("an earlier export, or somebody else's")
    description = export_model(small, path, image_size=56, opset=20, int8=True, overwrite=True)
    # The old weights go when the new model is there; what has another kind of name stays.
    (weights,) = set(tmp_path.iterdir()) - {path, other}
    assert weights.name == f"model.{hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}.data"
    assert path.stat().st_size < weights.stat().st_size
    assert onnx.load(path).opset_import[0].version == 20
    image = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = small.predict(image)
    anomaly_map, score = run(path, image.numpy())
    assert 0 < np.abs(anomaly_map - expected["anomaly_map"].numpy()).mean() < 0.05
    assert np.abs(score - expected["anomaly_score"].numpy()).max() < 0.1
    assert description["agreement"]["map_max"] <= 1e-4 < description["agreement_int8"]["map_max"]
    assert read_description(path) == json.loads(json.dumps(description))


@pytest.mark.parametrize("largest", [1000, 2_000_000_000])
def test_float16_keeps_its_ends_and_the_comparison_in_float32(
    tiny: AnomalyCLIP, tmp_path: Path, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", largest)
    path = tmp_path / "model.onnx"
    description = export_model(tiny, path, float16=True)
    model = onnx.load(path)
    onnx.checker.check_model(path)
    assert len(list(tmp_path.iterdir())) == (2 if largest == 1000 else 1)
    kinds = Counter(tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1)
    assert kinds[onnx.TensorProto.FLOAT16] > 20
    whole = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert any(list(tensor.dims)[1:] == [2] for tensor in whole)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    image = torch.randn(2, 3, 84, 84)
    with torch.no_grad():
        expected = tiny.predict(image)
    anomaly_map, score = run(path, image.numpy())
    assert 0 < np.abs(anomaly_map - expected["anomaly_map"].numpy()).max() < 0.02
    assert np.abs(score - expected["anomaly_score"].numpy()).max() < 0.005
    assert description["agreement"]["map_max"] <= 1e-4 < description["agreement_float16"]["map_max"]


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_no_path_of_this_machine_is_in_the_file(name: str, exported: Exported) -> None:
    content = exported(name)[0].read_bytes()
    assert b"anomaly_map" in content
    for trace in (b"site-packages", b"frozen_clip.py", bytes(Path(__file__).parents[2])):
        assert trace not in content


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("exists.onnx", {}, FileExistsError, "'.*exists.onnx' exists"),
        ("absent/model.onnx", {}, FileNotFoundError, "no folder"),
        ("model.engine", {}, ValueError, "must end in .onnx"),
        ("model.pt2", {"int8": True}, ValueError, "INT8 is made by onnxruntime, for .onnx only"),
        ("model.pt2", {"float16": True}, ValueError, "float16 is made by onnxruntime, for .onnx only"),
        ("model.onnx", {"float16": True, "int8": True}, ValueError, "either in INT8 or in float16"),
        ("model.onnx", {"opset": 9}, ValueError, "opset 9 is not one of 18 to 23"),
        ("model.onnx", {"image_size": 50}, ValueError, "image size 50 is no multiple of the patch size 14"),
    ],
)
def test_refusals(
    name: str, options: dict[str, Any], error: type[Exception], said: str, small: AnomalyCLIP, tmp_path: Path
) -> None:
    (tmp_path / "exists.onnx").write_text("precious")
    with pytest.raises(error, match=said):
        export_model(small, tmp_path / name, **options)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("exists.onnx", "precious")]
