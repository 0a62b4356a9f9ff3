# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""No identifier in logs: other libraries write URLs, headers and data sets into theirs."""

from __future__ import annotations

import logging
import warnings

__all__ = ["quiet_logs"]

_TALKATIVE = ("dicomweb_client", "pydicom", "pynetdicom", "urllib3", "requests", "retrying")


class _Nothing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


def quiet_logs() -> None:
    """Silence the libraries that talk with archives, at any level, whatever the program's own log is set to.

    Their loggers are switched off rather than set to a level: children of theirs that were set to DEBUG would still
    speak, and warnings and errors quote what an archive answers, which may hold names. Their warnings are ignored, too:
    pydicom's quote a UID or a code that is not as it should be, in whichever thread it is read.
    """
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_TALKATIVE)})\b")
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE]
    for name in {*names, *_TALKATIVE}:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        if not any(isinstance(each, _Nothing) for each in logger.filters):
            logger.addFilter(_Nothing())
