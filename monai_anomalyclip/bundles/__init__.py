# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The bundles that the package ships: where they lie, copies for use without a network, archives for the model zoo."""

from __future__ import annotations
