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
"""The paper's tables and figures, made again: what they consist of, and how to run them (see docs/experiments.md)."""

from __future__ import annotations

# The registry needs no torch; `runner`, `sources` and `workflows` do, and are imported where something is run.
from .experiment import METHODS, METRICS, Experiment, Group, Method, Table
from .tables import TABLES

__all__ = ["METHODS", "METRICS", "TABLES", "Experiment", "Group", "Method", "Table"]
