# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging

from monai_anomalyclip.archive.quiet_logs import quiet_logs


def test_no_level_lets_them_speak() -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        logging.getLogger("pynetdicom.acse")
        quiet_logs()
        for name in (
            "dicomweb_client",
            "dicomweb_client.web",
            "pynetdicom",
            "pynetdicom.acse",
            "urllib3.connectionpool",
        ):
            logger = logging.getLogger(name)
            logger.warning("CANARY^NAME")
            logger.error("CANARY^NAME")
            logger.debug("CANARY^NAME")
        logging.getLogger("monai_anomalyclip.archive").debug("of our own")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert said.getvalue() == "of our own\n"
