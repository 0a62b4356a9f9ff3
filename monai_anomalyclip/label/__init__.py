# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Parts of the MONAI Label app.

MONAI Label itself is needed by ``app`` and the modules that only it imports (``infer_tasks``, ``scoring``,
``strategies``, ``train_task``, ``archive_labels``, ``checked_labels``); the others work, and are tested, without it.
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
