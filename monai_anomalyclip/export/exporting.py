# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""From a network to a checked file: prompts baked in, traced, compared with PyTorch, described, and only then named."""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from monai_anomalyclip.export import onnx_file
from monai_anomalyclip.export.agreement import EXACT, Agreement, check_batches, measure_agreement, predict_exactly
from monai_anomalyclip.export.description import DESCRIPTION_KEY, describe_export
from monai_anomalyclip.export.onnx_file import halve, quantise
from monai_anomalyclip.networks import FrozenCLIPNetwork

__all__ = ["SUFFIXES", "BakedNetwork", "Format", "export_model", "quiet_exporters"]

Network = TypeVar("Network", bound=FrozenCLIPNetwork)


class BakedNetwork(nn.Module):
    """Image in, map and score out; the prompts were encoded once, the text tower is gone.

    The vision tower and what else the network learned are shared with the given network, not copied.

    Args:
        network: AnomalyCLIP or a baseline, prompts loaded.
        image_size: side of the square input in pixels, at which the export will be made.

    Raises:
        ValueError: when the image size is no multiple of the patch size.

    Example::

        anomaly_map, score = BakedNetwork(network, 518)(image)
    """

    text_features: Tensor

    def __init__(self, network: FrozenCLIPNetwork, image_size: int) -> None:
        super().__init__()
        if image_size < 1 or image_size % network.patch_size:
            below = max(1, image_size // network.patch_size) * network.patch_size
            raise ValueError(
                f"The image size {image_size} is no multiple of the patch size {network.patch_size} of "
                f"'{network.backbone_name}': use {below} or {below + network.patch_size}."
            )
        with torch.no_grad():
            self.register_buffer("text_features", network.encode_prompts().detach())
            self.network = _without_text(network)
            self.network.__dict__["encode_prompts"] = self._constant_prompts
            # Once for real, so that the positions resized to this image size are there as numbers when it is traced.
            device = self.text_features.device
            self(torch.zeros(1, 3, image_size, image_size, device=device))
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch.

        Args:
            image: CLIP-normalised, shape (B, 3, H, W).

        Returns:
            anomaly map (B, 1, H, W) and anomaly score (B,), both in [0, 1].
        """
        prediction = self.network.predict(image)
        return prediction["anomaly_map"], prediction["anomaly_score"]

    def _constant_prompts(self) -> Tensor:
        return self.text_features


def _without_text(network: Network) -> Network:
    """A shallow copy that has the vision tower of the CLIP only, no prompts, and an ordinary state dict."""
    vision_only = CLIP.__new__(CLIP)
    nn.Module.__init__(vision_only)
    vision_only.visual = network.clip.visual
    bare = copy.copy(network)
    modules = {name: module for name, module in network._modules.items() if name != "prompts"}
    bare.__dict__["_modules"] = {**modules, "clip": vision_only}
    bare.__dict__["_state_dict_hooks"] = OrderedDict()  # which leave the frozen CLIP out
    return bare


Format = Literal["onnx", "torch_export"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch_export": ".pt2"}


def export_model(
    network: FrozenCLIPNetwork,
    path: str | Path,
    *,
    prompts: str | Path | None = None,
    image_size: int | None = None,
    sigma: float = 4.0,
    opset: int = 18,
    int8: bool = False,
    float16: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a network with its prompts baked in: ``image`` (B, 3, S, S) to ``anomaly_map`` and ``anomaly_score``.

    The batch size is free, the image size is fixed. The finished file is run on the CPU and compared with PyTorch
    before it gets its name.

    Args:
        network: AnomalyCLIP or a baseline in float32 on the CPU, prompts loaded.
        path: file to write: .onnx, or .pt2 for ``torch.export``.
        prompts: file that the prompts came from, for its SHA-256.
        image_size: side S of the input; by default the network's own.
        sigma: of the Gaussian that the map is to be smoothed with, for the description.
        opset: version of ONNX's standard operators.
        int8: quantise the linear layers of an ONNX model to 8 bits.
        float16: bring an ONNX model into half precision, for GPUs.
        overwrite: whether an existing file may be replaced.

    Returns:
        the description that the file carries; under "agreement" the measured differences from PyTorch, of a smaller
        model under "agreement_int8" or "agreement_float16" its own.

    Raises:
        FileExistsError: when the file exists and ``overwrite`` is false.
        FileNotFoundError: when its folder does not exist.
        ValueError: for settings that do not go together, a network that cannot be traced, or differences of more
            than 1e-4 in float32.
        RuntimeError: when a package is missing.
    """
    path = Path(path)
    kind = _format_of(path)
    if int8 and float16:
        raise ValueError("A model is either in INT8 or in float16: choose one.")
    if (int8 or float16) and kind != "onnx":
        smaller = "INT8" if int8 else "float16"
        raise ValueError(f"{smaller} is made by onnxruntime, for .onnx only; '{path.name}' would be torch.export.")
    if opset not in onnx_file.OPSETS:
        first, last = onnx_file.OPSETS[0], onnx_file.OPSETS[-1]
        raise ValueError(f"The opset {opset} is not one of {first} to {last}, which the exporter writes.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"'{path}' exists; give another name or say that it may be replaced (--force).")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder '{path.parent}' for '{path.name}'.")
    if network.not_exportable:
        raise ValueError(f"{type(network).__name__} cannot be exported: {network.not_exportable}.")
    if kind == "onnx":
        onnx_file.check_installed()
    size = network.image_size if image_size is None else image_size
    baked = BakedNetwork(network, size)
    description = {"format": kind, **describe_export(network, prompts, size, sigma)}
    with quiet_exporters(), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder) / path.name
        program = _trace(baked, size, type(network).__name__)
        if kind == "onnx":
            weights = _finish_onnx(network, program, unfinished, description, opset, int8, float16)
        else:
            weights = None
            _finish_torch_export(network, program, unfinished, description)
        if weights is not None:
            os.replace(weights, path.with_name(weights.name))
        os.replace(unfinished, path)
    if kind == "onnx":
        for stale in onnx_file.stale_external_data(path, weights):
            stale.unlink(missing_ok=True)
    return description


def _finish_onnx(
    network: FrozenCLIPNetwork,
    program: torch.export.ExportedProgram,
    path: Path,
    description: dict[str, Any],
    opset: int,
    int8: bool,
    float16: bool,
) -> Path | None:
    """Write and check the model; returns its weights file, if it has one."""
    batches = check_batches(description["image_size"])
    expected = predict_exactly(network, batches)

    def agreement_of(model: Path) -> Agreement:
        session = onnx_file.open_session(model)
        return measure_agreement(expected, [onnx_file.run_session(session, batch) for batch in batches])

    exact = path.with_name("float32.onnx") if int8 or float16 else path
    onnx_file.write_onnx(program, exact, opset)
    description |= {"opset": opset, "precision": "float32"}
    description["agreement"] = _checked(agreement_of(exact)).as_dict()
    if int8:
        layers = quantise(exact, path)
        description["precision"] = f"{layers} linear layers in int8 (weights per channel, activations dynamic)"
        description["agreement_int8"] = agreement_of(path).as_dict()
    elif float16:
        halve(exact, path)
        description["precision"] = "float16 (the comparison with the prompts in float32)"
        description["agreement_float16"] = agreement_of(path).as_dict()
    onnx_file.add_description(path, description)
    return onnx_file.name_external_data(path, path.name)


def _finish_torch_export(
    network: FrozenCLIPNetwork, program: torch.export.ExportedProgram, path: Path, description: dict[str, Any]
) -> None:
    """Write the program, read it back, check it, and write it again with its description."""
    torch.export.save(program, path)
    loaded = torch.export.load(path)
    description["precision"] = "float32"
    batches = check_batches(description["image_size"])
    expected = predict_exactly(network, batches)
    run = loaded.module()
    description["agreement"] = _checked(measure_agreement(expected, [run(batch) for batch in batches])).as_dict()
    torch.export.save(loaded, path, extra_files={f"{DESCRIPTION_KEY}.json": json.dumps(description)})


def _checked(agreement: Agreement) -> Agreement:
    if not agreement.exact:
        raise ValueError(f"The exported model differs from PyTorch by more than {EXACT}, nothing is kept: {agreement}.")
    return agreement


def _trace(baked: BakedNetwork, image_size: int, method: str) -> torch.export.ExportedProgram:
    example = (torch.zeros(2, 3, image_size, image_size),)
    try:
        with torch.no_grad():
            program = torch.export.export(baked, example, dynamic_shapes={"image": {0: torch.export.Dim("batch")}})
    except Exception as error:  # whichever of torch's many errors: the way out is the same
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{method} cannot be exported with a free batch size: {reason}") from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of source files on this machine
    return program


def _format_of(path: Path) -> str:
    for kind, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return kind
    raise ValueError(f"'{path.name}' must end in .onnx, or in .pt2 for torch.export.")


@contextmanager
def quiet_exporters() -> Iterator[None]:
    """Without the exporters' remarks on their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
