# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which network made the results: what results.json and DICOM objects say of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest
from monai_anomalyclip.writers.dicom.provenance import Provenance
from monai_anomalyclip.writers.record import Model

__all__ = ["describe_model", "provenance_of"]


def describe_model(network: Any, prompts: str | os.PathLike[str] | None) -> Model:
    """Describe a network.

    Args:
        network: with ``backbone_name``, ``backbone_sha256`` and ``settings``, such as :class:`AnomalyCLIP`.
        prompts: file of the tuned prompts; None, or a file that does not exist, for a method that needs none.
    """
    settings = {key: value for key, value in network.settings.items() if key not in ("model_name", "pretrained")}
    words = {kind: tuple(settings.pop(f"{kind}_words", ())) for kind in ("normal", "abnormal")}
    return Model(
        backbone=str(network.backbone_name),
        backbone_sha256=network.backbone_sha256,
        prompts_sha256=None if prompts is None else prompts_digest(prompts),
        words=words,
        settings={"method": type(network).__name__, **settings},
    )


def provenance_of(
    model: Model, settings: Mapping[str, Any], deterministic: bool = False, context: str = ""
) -> Provenance:
    """What DICOM objects say of the model.

    Args:
        model: from :func:`describe_model`.
        settings: of the run, such as threshold and preset.
        deterministic: see :class:`Provenance`.
        context: likewise.
    """
    untuned = hashlib.sha256(json.dumps(model.settings, sort_keys=True, default=str).encode()).hexdigest()
    return Provenance(
        # Without tuned prompts the method's settings are all there is to tell it by.
        prompts_sha256=model.prompts_sha256 or untuned,
        backbone=model.backbone,
        parameters=settings,
        algorithm_name=str(model.settings["method"]),
        deterministic=deterministic,
        context=context,
    )
