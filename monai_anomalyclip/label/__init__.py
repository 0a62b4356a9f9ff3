# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the MONAI Label app.

MONAI Label itself is needed by ``app`` and the modules that only it imports (``infer_tasks``, ``scoring``,
``strategies``, ``train_task``, ``archive_labels``, ``checked_labels``, and for the sake of security ``server_checks``,
``checked_datastores``, ``upload_sessions``); the others work, and are tested, without it.
"""

from __future__ import annotations

from .app_folder import write_label_app
from .model import AnomalyModel, Prediction
from .prompt_tuning import TuningReport, tune_prompts
from .training_set import LabelledSlices, encode_labelled

__all__ = [
    "AnomalyModel",
    "LabelledSlices",
    "Prediction",
    "TuningReport",
    "encode_labelled",
    "tune_prompts",
    "write_label_app",
]
