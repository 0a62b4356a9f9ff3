# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX files: written, with weights beside them where one file cannot hold them, described, made smaller, and run."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_anomalyclip.atomic_file import sha256_of
from monai_anomalyclip.export.description import DESCRIPTION_KEY

__all__ = [
    "LARGEST_FILE",
    "MAP_MEAN_BOUND",
    "OPSETS",
    "OUTPUTS",
    "SCORE_BOUND",
    "add_description",
    "check_installed",
    "chosen_providers",
    "halve",
    "name_external_data",
    "open_session",
    "quantise",
    "run_session",
    "stale_external_data",
    "write_onnx",
]

logger = logging.getLogger(__name__)

LARGEST_FILE = 2_000_000_000
"""Bytes of weights up to which a model is one file; protobuf, its format, ends at 2 GiB."""

OPSETS = range(18, 24)
Runtime: TypeAlias = Literal["onnxruntime", "openvino"]
_ON_CPU, _ON_CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
OUTPUTS = ["anomaly_map", "anomaly_score"]


def check_installed() -> None:
    """Refuse to start where the packages are missing.

    Raises:
        RuntimeError: with the command that installs them.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"ONNX needs the package {error.name}, which is not installed: pip install onnx onnxruntime onnxscript."
        ) from error


def write_onnx(program: torch.export.ExportedProgram, path: Path, opset: int) -> None:
    """Translate an exported program with the input ``image`` of dynamic batch size.

    Args:
        program: from ``torch.export``.
        path: file to write; weights of more than :data:`LARGEST_FILE` go into ``weights.data`` beside it.
        opset: version of ONNX's standard operators.
    """
    import onnx_ir

    translated = torch.onnx.export(
        program, input_names=["image"], output_names=OUTPUTS, opset_version=opset, dynamo=True, verbose=False
    )
    assert translated is not None
    model = translated.model
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(model)  # paths of source files on this machine
    _name_batch_dimension(model)
    _fold_transposed_weights(model)
    _save(model, path)


def _save(model: Any, path: Path) -> None:
    import onnx_ir

    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    onnx_ir.save(model, path, external_data="weights.data" if weights > LARGEST_FILE else None)


def add_description(path: Path, description: dict[str, Any]) -> None:
    """Put the description into the model; weights in a file of their own are not touched."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    model.producer_name, model.producer_version = description["package"].split()
    model.doc_string = description["notice"]
    onnx.helper.set_model_props(model, {"notice": description["notice"], DESCRIPTION_KEY: json.dumps(description)})
    onnx.save(model, path)


def name_external_data(path: Path, final_name: str) -> Path | None:
    """Rename a model's weights file to one that names their content, so that no other model's weights are replaced.

    Args:
        path: the model.
        final_name: the name that the model is going to have; the weights get ``<stem>.<12 hex digits>.data``.

    Returns:
        the weights file, in the same folder; None when the model holds its weights itself.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"]
    if not entries:
        return None
    weights = path.with_name(entries[0].value)
    named = weights.with_name(f"{Path(final_name).stem}.{sha256_of(weights)[:12]}.data")
    weights.rename(named)
    for entry in entries:
        entry.value = named.name
    onnx.save(model, path)
    return named


def stale_external_data(path: Path, current: Path | None) -> list[Path]:
    """Weights files of earlier exports under the same name."""
    pattern = re.compile(re.escape(path.stem) + r"\.[0-9a-f]{12}\.data")
    kept = current.name if current else None
    return [other for other in path.parent.iterdir() if pattern.fullmatch(other.name) and other.name != kept]


def chosen_providers(device: str | torch.device, listed: Sequence[str] | None = None) -> list[str]:
    """onnxruntime's execution providers for a device, best first.

    Args:
        device: on a GPU CUDA's provider is taken where onnxruntime has it, else the CPU's with a warning.
        listed: those to take instead, such as TensorRT's, which builds an engine for minutes first.

    Raises:
        ValueError: one of `listed` is not there; onnxruntime would compute on the CPU without a word.
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if listed is not None:
        if missing := [name for name in listed if name not in there]:
            raise ValueError(
                f"onnxruntime has no '{missing[0]}' here, only {', '.join(there)}: install onnxruntime-gpu or "
                "another of its packages in place of onnxruntime, or leave the providers out."
            )
        return list(listed)
    if torch.device(device).type != "cuda":
        return [_ON_CPU]
    if _ON_CUDA not in there:
        logger.warning("onnxruntime has no CUDA here and computes on the CPU: install onnxruntime-gpu in its place.")
        return [_ON_CPU]
    return [_ON_CUDA, _ON_CPU]


def open_session(
    path: Path, providers: Sequence[str] = (_ON_CPU,), threads: int | None = None, runtime: Runtime = "onnxruntime"
) -> Any:
    """A model that is ready to run.

    Args:
        path: the model.
        providers: onnxruntime's execution providers, best first.
        threads: CPU threads; by default as many as torch uses.
        runtime: "openvino" for Intel's on the CPU, which takes no providers.

    Raises:
        RuntimeError: OpenVINO is not installed.
    """
    count = threads or torch.get_num_threads()
    if runtime == "openvino":
        return _OpenVINOSession(path, count)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count
    session = onnxruntime.InferenceSession(path, options, providers=list(providers))
    if lost := [name for name in providers if name not in session.get_providers()]:
        logger.warning("onnxruntime could not start %s and computes without.", ", ".join(lost))
    return session


class _OpenVINOSession:
    """An ONNX file in OpenVINO, in float32 (by itself it takes bfloat16 where the CPU can), run as onnxruntime is."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RuntimeError("OpenVINO is not installed: pip install openvino, or leave the runtime out.") from error
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        self._model = openvino.Core().compile_model(path, "CPU", settings)

    def run(self, outputs: Sequence[str], inputs: dict[str, npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
        results = self._model(inputs)
        return [np.array(results[name]) for name in outputs]


def run_session(session: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    """Map and score of a batch, as tensors on the CPU."""
    anomaly_map, score = session.run(OUTPUTS, {"image": image.detach().to("cpu", torch.float32).numpy()})
    return torch.from_numpy(anomaly_map), torch.from_numpy(score)


def _fold_transposed_weights(model: Any) -> None:
    """Store weights of several uses as they are used: the exporter leaves a Transpose, which quantisation stops at."""
    import onnx_ir

    for node in list(model.graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or weight.const_value is None:
            continue
        turned = np.ascontiguousarray(weight.const_value.numpy().transpose(node.attributes["perm"].as_ints()))
        name = f"{weight.name}.transposed"
        tensor = onnx_ir.tensor(turned, name=name)
        constant = onnx_ir.Value(
            name=name, const_value=tensor, shape=onnx_ir.Shape(turned.shape), type=onnx_ir.TensorType(tensor.dtype)
        )
        model.graph.register_initializer(constant)
        onnx_ir.convenience.replace_all_uses_with(node.outputs[0], constant)
        model.graph.remove(node, safe=True)
        if not weight.uses():
            del model.graph.initializers[weight.name]


def _name_batch_dimension(model: Any) -> None:
    """Call the batch dimension "batch", in the shapes of all values, instead of by torch's internal symbol."""
    import onnx_ir

    symbol = re.compile(rf"\b{re.escape(str(model.graph.inputs[0].shape[0]))}\b")
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = onnx_ir.Shape(
                [size if isinstance(size, int) else symbol.sub("batch", str(size)) for size in value.shape]
            )


def halve(source: Path, target: Path) -> None:
    """Bring an ONNX model into float16, for GPUs; the image, the comparison with the prompts and what follows stay.

    Args:
        source: ONNX model in float32.
        target: ONNX model to write.
    """
    import onnx
    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    small = {tensor.name for tensor in model.graph.initializer if list(tensor.dims)[1:] == [2]}
    exact, names = [], set(small)
    for node in model.graph.node:  # in the order in which they are computed
        if names & set(node.input):
            exact.append(node.name)
            names |= set(node.output)
    halved = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True, node_block_list=exact)
    turned = onnx_ir.from_proto(halved)
    turned.graph.sort()  # the casts were put behind what they are for
    _save(turned, target)


MAP_MEAN_BOUND = 0.02
"""Mean absolute difference of the map from which on an 8-bit model is reported as questionable."""

SCORE_BOUND = 0.05
"""Largest difference of a score from which on an 8-bit model is reported as questionable."""


def quantise(source: Path, target: Path) -> int:
    """Quantise the linear layers of an ONNX model.

    The comparison with the prompts stays in float32: it costs nothing, and its cosines are what the softmax with a
    temperature of 0.07 magnifies. So do the convolution of the patches and attention, which have no constant factor.

    Args:
        source: ONNX model in float32.
        target: ONNX model to write.

    Returns:
        number of layers that are computed in 8 bits.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source, load_external_data=False)
    text = {tensor.name for tensor in model.graph.initializer if list(tensor.dims)[1:] == [2]}
    kept = [node.name for node in model.graph.node if text & set(node.input)]
    size = source.stat().st_size + sum(path.stat().st_size for path in source.parent.glob("weights.data"))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime advises its own pre-processing through the root logger
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            use_external_data_format=size > LARGEST_FILE,
        )
    finally:
        root.setLevel(level)
    quantised = onnx.load(target, load_external_data=False)
    return sum(node.op_type == "MatMulInteger" for node in quantised.graph.node)
