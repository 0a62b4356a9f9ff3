# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What serves only the paper's experiments: its baselines, its data sets, its tables. Nothing else imports it."""

from __future__ import annotations
