# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the MONAI Label app.

MONAI Label itself is needed by ``app`` and the modules that only it imports (``infer_tasks``, ``scoring``,
``strategies``, ``train_task``, ``archive_labels``, ``checked_labels``); the others work, and are tested, without it.
"""

from __future__ import annotations

from monai_anomalyclip.label.app_folder import write_label_app
from monai_anomalyclip.label.model import AnomalyModel, Prediction
from monai_anomalyclip.label.prompt_tuning import TuningReport, tune_prompts

__all__ = [
    "AnomalyModel",
    "Prediction",
    "TuningReport",
    "tune_prompts",
    "write_label_app",
]
