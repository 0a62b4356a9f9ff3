# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Image archives: series fetched or received, scored, and their results stored, by DICOMweb and DIMSE."""

from __future__ import annotations
