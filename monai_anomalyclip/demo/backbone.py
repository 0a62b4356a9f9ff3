# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration backbone that the package carries: a tiny CLIP of our own, trained on synthetic phantoms."""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["DEMO_BANNER", "WEIGHTS_FOLDER", "demo_backbone"]

DEMO_BANNER = (
    "Demonstration backbone: a tiny CLIP trained on synthetic phantoms (see demo/weights/MODEL_CARD.md). "
    "It shows how the software works and knows nothing of real images. Research use only."
)
WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@lru_cache(maxsize=1)
def _announce() -> None:
    logging.getLogger(__name__).warning(DEMO_BANNER)


def demo_backbone() -> tuple[dict[str, Any], Path]:
    """The demonstration backbone's settings and weights; the first call in a process logs :data:`DEMO_BANNER`.

    Returns:
        ``config`` with ``clip`` (arguments of ``open_clip.CLIP``), ``image_size``, ``feature_layers`` and
        ``dpam_start``; and the path of a safetensors file with its state dict in float16.

    Raises:
        FileNotFoundError: the weights are not installed.
    """
    weights, settings = WEIGHTS_FOLDER / "demo_clip.safetensors", WEIGHTS_FOLDER / "demo_clip.json"
    for path in (weights, settings):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing; make it with: "
                f"python -m monai_anomalyclip.demo.backbone_training --output {path.parent}"
            )
    _announce()
    config: dict[str, Any] = json.loads(settings.read_text())
    return config, weights
