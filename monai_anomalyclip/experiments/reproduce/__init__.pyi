# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .experiment import METHODS, METRICS, Experiment, Group, Method, Table
from .tables import TABLES

__all__ = ["METHODS", "METRICS", "TABLES", "Experiment", "Group", "Method", "Table"]
