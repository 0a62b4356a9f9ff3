# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging
import warnings

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from monai_anomalyclip.archive.dicomweb import quiet_logs


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


def test_odd_values_are_not_quoted() -> None:
    """pydicom warns of a value that breaks the rules when it is read, and quotes it."""
    image = Dataset()
    image[0x0020000D] = pydicom.DataElement(0x0020000D, "UI", "CANARY.01", validation_mode=0)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    image.save_as(file)

    def said(quiet: bool) -> list[str]:
        file.seek(0)
        header = pydicom.dcmread(file, force=True)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            if quiet:
                quiet_logs()
            assert header.StudyInstanceUID == "CANARY.01"
        return [str(one.message) for one in seen]

    (message,) = said(quiet=False)
    assert "CANARY" in message
    assert said(quiet=True) == []
