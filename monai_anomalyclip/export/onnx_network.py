# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""An exported ONNX model in the network's place: `predict` and everything behind it run on onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_anomalyclip.export.description import read_description
from monai_anomalyclip.export.onnx_file import Runtime, check_installed, chosen_providers, open_session, run_session

__all__ = ["ONNXNetwork"]


class ONNXNetwork(nn.Module):
    """Runs a file of ``monai-anomalyclip export`` behind the face of AnomalyCLIP, for inference only.

    Args:
        path: the .onnx file.
        providers: onnxruntime's execution providers, best first; by default those for `device`
            (see :func:`~monai_anomalyclip.export.onnx_file.chosen_providers`).
        threads: CPU threads; by default as many as torch uses.
        device: "cpu", "cuda", ...
        runtime: "openvino" to run it by OpenVINO on a CPU instead of onnxruntime.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it was not written by ``monai-anomalyclip export``, or onnxruntime has no such provider.
        RuntimeError: when onnxruntime, or OpenVINO where it is asked for, is missing.

    Example::

        network = ONNXNetwork("anomalyclip.onnx")
        prediction = network.predict(image)
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        device: str | torch.device = "cpu",
        runtime: Runtime = "onnxruntime",
    ) -> None:
        super().__init__()
        check_installed()
        self.description = read_description(path)
        self.image_size: int = self.description["image_size"]
        self.backbone_name: str = self.description["backbone"]
        self.backbone_sha256: str = self.description["backbone_sha256"]
        self.settings: dict[str, Any] = {
            **self.description["settings"],
            **{f"{kind}_words": words for kind, words in self.description["words"].items()},
            "image_size": self.image_size,
            "exported_method": self.description["settings"]["method"],
            "exported_prompts_sha256": self.description["prompts_sha256"],
            "precision": self.description["precision"],
        }
        del self.settings["method"]
        self._session = open_session(Path(path), chosen_providers(device, providers), threads, runtime)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Anomaly map and image-level score.

        Args:
            image: CLIP-normalised, shape (B, 3, S, S) with the image size S of the export.

        Returns:
            ``anomaly_map`` (B, 1, S, S) and ``anomaly_score`` (B,), both in [0, 1], on the image's device.

        Raises:
            ValueError: for another shape.
        """
        expected = (3, self.image_size, self.image_size)
        if image.ndim != 4 or image.shape[1:] != expected:
            raise ValueError(
                f"The exported model takes images (B, {', '.join(map(str, expected))}), got shape {tuple(image.shape)}."
            )
        anomaly_map, score = run_session(self._session, image)
        return {"anomaly_map": anomaly_map.to(image.device), "anomaly_score": score.to(image.device)}

    def compile_encoder(self, enabled: bool = True) -> None:
        """Refuse to be compiled; with ``enabled=False``, as configurations call it, do nothing.

        Raises:
            ValueError: when it is asked for.
        """
        if enabled:
            raise ValueError("An exported ONNX model cannot be compiled: leave --compile (compile) out.")

    def forward(self, image: Tensor) -> Tensor:
        """The anomaly map alone, as AnomalyCLIP's forward returns it."""
        return self.predict(image)["anomaly_map"]
