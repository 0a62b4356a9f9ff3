# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""INT8 for CPUs: weights in 8 bits, activations quantised as they come (dynamic quantisation by onnxruntime)."""

from __future__ import annotations

import logging
from pathlib import Path

from monai_anomalyclip.export.onnx_file import LARGEST_FILE

__all__ = ["MAP_MEAN_BOUND", "SCORE_BOUND", "quantise"]

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
