# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A page on this machine to drop studies on: progress, the ranked list, the viewer, a review of what was found."""

from __future__ import annotations

import lazy_loader

# Without its __dir__: MONAI takes the members of every loaded "monai..." module, which would import them all.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
