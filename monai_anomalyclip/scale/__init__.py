# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Many processes, computers and inputs: what is done of a work, templates for schedulers, a cluster."""

from __future__ import annotations
