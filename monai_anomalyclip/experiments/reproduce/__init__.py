# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The paper's tables and figures, made again: what they consist of, and how to run them (see docs/experiments.md)."""

from __future__ import annotations

# The registry needs no torch; `runner`, `sources` and `workflows` do, and are imported where something is run.
from monai_anomalyclip.experiments.reproduce.experiment import METHODS, METRICS, Experiment, Group, Method, Table
from monai_anomalyclip.experiments.reproduce.tables import TABLES

__all__ = ["METHODS", "METRICS", "TABLES", "Experiment", "Group", "Method", "Table"]
