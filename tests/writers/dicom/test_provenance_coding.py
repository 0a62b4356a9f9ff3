# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from monai_anomalyclip.writers.dicom import provenance as coding


def test_defaults_are_the_codes_of_the_standard() -> None:
    assert coding.parse_code(coding.DEFAULT_CATEGORY) == codes.SCT.MorphologicallyAbnormalStructure
    assert coding.parse_code(coding.DEFAULT_TYPE) == codes.SCT.Lesion
    assert codes.UCUM.NoUnits == coding.NO_UNITS


def test_parts_are_stripped() -> None:
    code = coding.parse_code(" 108369006 ^SCT^ Neoplasm")
    assert (code.value, code.scheme_designator, code.meaning) == ("108369006", "SCT", "Neoplasm")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("52988006", "must read"),
        ("1^SCT^a^b", "must read"),
        ("^SCT^Lesion", "code of a coded concept"),
        ("12345678901234567^SCT^Lesion", "code of a coded concept"),
        ("1^99TOOLONGASCHEMENAME^Lesion", "scheme of a coded concept"),
        ("1^SCT^" + "x" * 65, "meaning of a coded concept"),
        ("1^SCT^Läsion", "meaning of a coded concept"),
        ("1^SCT^a\\b", "meaning of a coded concept"),
        ("1^SCT^a\nb", "meaning of a coded concept"),
    ],
)
def test_what_is_no_code_is_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        coding.parse_code(text)
