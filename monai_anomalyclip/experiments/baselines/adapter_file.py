# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Reading VAND's learned linear layers from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["read_adapters"]

_PREFIX, _PUBLISHED_PREFIX = "adapters.", "fc."


def read_adapters(path: str | Path) -> Mapping[str, Tensor]:
    """Read linear layers: a bundle's ``model.pt``, a checkpoint of a tuning run, or the authors' published layout.

    Nothing in the file is executed. The published layout is ``{"trainable_linearlayer": {"fc.0.weight": ...}}``.

    Returns:
        ``adapters.<layer>.weight`` and ``adapters.<layer>.bias``; with the record of the backbone in the metadata where
        the file has one.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file holds no such layers, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There are no linear layers of VAND at '{path}': tune some (run training with configs/methods/vand.json "
            "as the last --config_file), or give the authors' released file as --prompts."
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or a pickle that would run code: torch refuses it
        raise ValueError(
            f"'{path}' cannot be read safely (weights_only) as linear layers of VAND: {type(error).__name__}."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if isinstance(content, Mapping) and isinstance(content.get("trainable_linearlayer"), Mapping):
        published = content["trainable_linearlayer"]
        content = {_PREFIX + str(key).removeprefix(_PUBLISHED_PREFIX): value for key, value in published.items()}
    if not isinstance(content, Mapping) or f"{_PREFIX}0.weight" not in content:
        raise ValueError(f"'{path}' holds no linear layers of VAND.")
    if not all(isinstance(value, Tensor) and bool(value.isfinite().all()) for value in content.values()):
        raise ValueError(f"The linear layers in '{path}' are not all tensors of finite values.")
    return content
