# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps pydicom's own messages, which quote the text of the files and their paths, out of logs and warnings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_pydicom"]


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings and its loggers within the block.

    pydicom decodes an element when it is first used, so every place that looks into a header needs this.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level  # that of its child loggers, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)
