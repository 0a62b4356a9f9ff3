# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What serves only the paper's experiments: its baselines, its data sets, its tables. Nothing else imports it."""

from __future__ import annotations

import lazy_loader

# Without its __dir__: MONAI takes the members of every loaded "monai..." module, which would import them all.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
