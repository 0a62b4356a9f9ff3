# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Keep header values out of logs and warnings while DICOM objects are made."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from monai_anomalyclip.data.dicom.quiet import quiet_pydicom

__all__ = ["silenced"]


@contextmanager
def silenced() -> Iterator[None]:
    """Silence pydicom and highdicom, whose messages quote names and identifiers; also a decorator: ``@silenced()``."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    with quiet_pydicom():  # and all warnings
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)
