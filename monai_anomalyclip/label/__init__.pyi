# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .app_folder import write_label_app
from .model import AnomalyModel, Prediction
from .prompt_tuning import TuningReport, tune_prompts

__all__ = [
    "AnomalyModel",
    "Prediction",
    "TuningReport",
    "tune_prompts",
    "write_label_app",
]
