# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
