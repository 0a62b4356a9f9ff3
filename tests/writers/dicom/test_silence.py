# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import warnings

import pytest

from monai_anomalyclip.writers.dicom.silence import silenced


def test_libraries_are_silent_inside_and_as_before_outside(caplog: pytest.LogCaptureFixture) -> None:
    ours = logging.getLogger("monai_anomalyclip.test")
    theirs = [logging.getLogger(name) for name in ("highdicom", "highdicom.base", "pydicom")]
    theirs[0].setLevel(logging.INFO)

    @silenced()
    def speak() -> None:
        for logger in theirs:
            logger.error("CANARY")
        warnings.warn("CANARY", stacklevel=1)
        ours.error("kept")

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            speak()
            with pytest.raises(ValueError, match="kept"), silenced():
                raise ValueError("kept")
        assert not caught
        assert [record.message for record in caplog.records] == ["kept"]
        theirs[1].info("heard again")
        assert caplog.records[-1].message == "heard again"
    finally:
        theirs[0].setLevel(logging.NOTSET)
