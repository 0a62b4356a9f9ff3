# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A reference of normals as one ONNX model: encoder and bank, picture in, map and score out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.export import onnx_file
from monai_anomalyclip.export.agreement import EXACT, measure_agreement
from monai_anomalyclip.reference import NormalReference, image_score, join_stages
from monai_anomalyclip.transforms.anomaly_map import resize_anomaly_map

__all__ = ["BakedReference", "export_reference"]


class BakedReference(nn.Module):
    """Encoder and bank of a reference with nothing that depends on the values of an image: it can be traced.

    Args:
        reference: on the CPU; its encoder's weights are shared, its bank is copied to float32.

    Raises:
        ValueError: the encoder does its own preparation (the tower of a CLIP), or images are made alike first.

    Example::

        baked = BakedReference(NormalReference.load("my_ct.reference"))
        distances, scores = baked(images)  # images (B, 3, S, S) in [0, 1]
    """

    mean: Tensor
    std: Tensor
    bank: Tensor
    lengths: Tensor

    def __init__(self, reference: NormalReference) -> None:
        super().__init__()
        encoder = reference.encoder
        if not isinstance(encoder.stages, nn.Module) or encoder.prepares_itself:
            raise ValueError(f"The encoder {encoder.name} cannot be exported: it prepares its images by itself.")
        if reference.settings["alike"]:
            raise ValueError("A reference whose images are made alike first (--alike) cannot be exported.")
        self.stages = encoder.stages
        self.side = encoder.image_size
        self.grid, self.normalise, self.scale = encoder.grid, encoder.normalise, encoder.largest_distance
        mean, std = (torch.tensor(encoder.identity.settings[name]).reshape(3, 1, 1) for name in ("mean", "std"))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        bank = reference.bank
        patches = torch.cat([bank.whole.flatten(0, 1), bank.thin]).float()
        self.register_buffer("bank", patches.T.contiguous())
        self.register_buffer("lengths", patches.square().sum(1))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compare pictures with the normals.

        Args:
            image: (B, 3, S, S) in [0, 1], S the encoder's image size.

        Returns:
            distances (B, 1, S, S) and scores (B,), in [0, 1].
        """
        maps = self.stages((image - self.mean) / self.std)
        patches = join_stages(maps, self.grid, normalise=self.normalise, check=False).half().float()
        squared = patches.square().sum(2, keepdim=True) + self.lengths - 2 * (patches @ self.bank)
        distances = squared.amin(2).clamp(min=0).sqrt() / self.scale
        coarse = distances.reshape(-1, 1, *self.grid)
        return resize_anomaly_map(coarse, (self.side, self.side)).clamp(0, 1), image_score(distances)


def export_reference(
    reference: NormalReference, path: str | Path, *, opset: int = 18, overwrite: bool = False
) -> dict[str, Any]:
    """Write a reference as an ONNX model ``image`` -> ``anomaly_map``, ``anomaly_score``, and compare it with PyTorch.

    The scores of the normals, each found without its own patient, travel in its description: with them a runtime finds
    p-values, (1 + number at least as large) / (k + 1).

    Args:
        reference: on the CPU.
        path: file to write, .onnx.
        opset: version of ONNX's standard operators.
        overwrite: whether an existing file may be replaced.

    Returns:
        the description that the file carries.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        ValueError: it cannot be exported, or the model differs from PyTorch by more than 1e-4.
        RuntimeError: a package is missing.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"'{path.name}' must end in .onnx: a reference is exported to ONNX.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"'{path}' exists; give another name or say that it may be replaced (--force).")
    onnx_file.check_installed()
    baked = BakedReference(reference)
    calibration = reference.calibration if reference.n_groups > 1 else None
    description: dict[str, Any] = {
        "notice": RESEARCH_USE_ONLY,
        "package": f"monai_anomalyclip {__version__}",
        "format": "onnx",
        "method": "ReferenceNetwork",
        **{key: value for key, value in reference.describe().items() if key != "encoder_settings"},
        "image_size": baked.side,
        "preprocessing": {
            "steps": [
                "intensities to [0, 1], gray repeated to 3 channels",
                "resize to image_size x image_size, aspect ratio not kept: bilinear, antialiased",
            ],
            "input": {"image": ["batch", 3, baked.side, baked.side]},
            "dtype": "float32",
        },
        "normal_scores": [] if calibration is None else calibration.scores.tolist(),
        "opset": opset,
        "precision": "float32",
    }
    batches = [torch.rand(count, 3, baked.side, baked.side, generator=_seeded(count)) for count in (1, 3)]
    with torch.no_grad():
        expected = [baked(batch) for batch in batches]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder) / path.name
        onnx_file.write_onnx(_traced(baked), unfinished, opset)
        session = onnx_file.open_session(unfinished)
        agreement = measure_agreement(expected, [onnx_file.run_session(session, batch) for batch in batches])
        if not agreement.exact:
            raise ValueError(f"The model differs from PyTorch by more than {EXACT}, nothing is kept: {agreement}.")
        description["agreement"] = agreement.as_dict()
        onnx_file.add_description(unfinished, description)
        os.replace(unfinished, path)
    return description


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _traced(baked: BakedReference) -> torch.export.ExportedProgram:
    from monai_anomalyclip.export.exporting import quiet_exporters

    example = torch.rand(2, 3, baked.side, baked.side)
    with quiet_exporters(), torch.no_grad():
        return torch.export.export(baked, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
