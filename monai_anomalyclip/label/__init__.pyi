# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .app_folder import write_label_app
from .model import AnomalyModel, Prediction
from .prompt_tuning import TuningReport, tune_prompts
from .reference_model import ReferenceModel, label_model

__all__ = [
    "AnomalyModel",
    "Prediction",
    "ReferenceModel",
    "TuningReport",
    "label_model",
    "tune_prompts",
    "write_label_app",
]
