# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the MONAI Label app.

MONAI Label itself is needed by ``app`` and the modules that only it imports (``tasks``, ``strategies``,
``archive_labels``, and for the sake of security ``server_checks`` and ``checked_datastores``); the others work, and are
tested, without it.
"""

from __future__ import annotations

import lazy_loader

# Without its __dir__: MONAI takes the members of every loaded "monai..." module, which would import them all.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
