# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in for pydicom 3's decoder gives what pydicom 3 gives."""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any

import numpy as np
import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from monai_anomalyclip.data.dicom.pydicom_api import NativeDecoder, quiet_pydicom

GRAY = {"samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2", "planar_configuration": 0}
COLOUR = {"samples_per_pixel": 3, "photometric_interpretation": "RGB", "planar_configuration": 0}


def form(bits: int, stored: int, signed: int = 0, **attributes: Any) -> dict[str, Any]:
    image = {"rows": 3, "columns": 4, "bits_allocated": bits, "bits_stored": stored, "pixel_representation": signed}
    return {**image, "number_of_frames": 3, "pixel_keyword": "PixelData", "pixel_vr": "OW", **GRAY, **attributes}


FORMS = {
    "8 bits": form(8, 8, pixel_vr="OB"),
    "8 bits in words": form(8, 8, rows=3, columns=5),
    "12 of 16": form(16, 12),
    "12 of 16, signed": form(16, 12, 1),
    "16, signed": form(16, 16, 1),
    "32": form(32, 32),
    "RGB": form(8, 8, pixel_vr="OB", **COLOUR),
    "RGB by planes": form(8, 8, pixel_vr="OB", **{**COLOUR, "planar_configuration": 1}),
    "YBR_FULL_422": form(8, 8, pixel_vr="OB", **{**COLOUR, "photometric_interpretation": "YBR_FULL_422"}),
    "float": form(32, 32, pixel_keyword="FloatPixelData", pixel_vr="OF"),
    "double": form(64, 64, pixel_keyword="DoubleFloatPixelData", pixel_vr="OD"),
}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=["little", "big"])
@pytest.mark.parametrize("name", FORMS)
def test_uncompressed_frames_are_those_of_pydicom_3(name: str, syntax: UID) -> None:
    described = FORMS[name]
    samples = 2 if "422" in name else described["samples_per_pixel"]
    count = 3 * described["rows"] * described["columns"] * samples * described["bits_allocated"] // 8
    kind = {"float": "f4", "double": "f8"}.get(name)
    numbers = np.random.default_rng(0)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    values = numbers.standard_normal(count // 4).astype(f"{order}{kind}") if kind else numbers.integers(0, 256, count)
    pixels = (values if kind else values.astype(np.uint8)).tobytes() + b"\0"
    pixels = pixels[: len(pixels) // 2 * 2]
    for index in range(3):
        expected, properties = get_decoder(syntax).as_array(io.BytesIO(pixels), index=index, raw=True, **described)
        found, own = NativeDecoder(syntax).as_array(io.BytesIO(pixels), index=index, **described)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.kind == expected.dtype.kind
        assert own["photometric_interpretation"] == properties["photometric_interpretation"]


def test_silence_within_silence_ends_with_the_outermost(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("pydicom")
    before = logger.level
    changes = []
    monkeypatch.setattr(logger, "setLevel", lambda level: (changes.append(level), setattr(logger, "level", level)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_pydicom():
            with quiet_pydicom():
                warnings.warn("inner", stacklevel=1)
            with pytest.raises(KeyError), quiet_pydicom():
                raise KeyError
            warnings.warn("outer", stacklevel=1)
        with pytest.raises(KeyError), quiet_pydicom():
            raise KeyError
        warnings.warn("after", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["after"]
    assert changes == [logging.CRITICAL + 1, before] * 2  # twice a block: it clears the caches of all loggers
