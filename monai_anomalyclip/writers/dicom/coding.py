# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Coded concepts: those of the standard, and our own few private ones."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

__all__ = [
    "ANOMALY_MAP",
    "ANOMALY_SCORE",
    "ANOMALY_THRESHOLD",
    "DEFAULT_CATEGORY",
    "DEFAULT_TYPE",
    "NO_UNITS",
    "PRIVATE_SCHEME",
    "parse_code",
    "private_scheme_item",
]

DEFAULT_CATEGORY = "49755003^SCT^Morphologically Abnormal Structure"
DEFAULT_TYPE = "52988006^SCT^Lesion"

PRIVATE_SCHEME = "99ANOMALYCLIP"  # "99" marks a private scheme (DICOM PS3.16 section 8.2)

ANOMALY_SCORE = CodedConcept("anomaly-score", PRIVATE_SCHEME, "Anomaly score")
ANOMALY_THRESHOLD = CodedConcept("threshold", PRIVATE_SCHEME, "Anomaly score threshold")
ANOMALY_MAP = CodedConcept("anomaly-map", PRIVATE_SCHEME, "Anomaly map value")
NO_UNITS = CodedConcept("1", "UCUM", "no units")

_LIMITS = {"code": 16, "scheme": 16, "meaning": 64}  # SH, SH, LO


def parse_code(text: str) -> CodedConcept:
    """Make a coded concept of ``"code^scheme^meaning"``, such as ``"52988006^SCT^Lesion"``.

    Args:
        text: three parts joined by ``^``: Code Value (at most 16 characters), Coding Scheme Designator (16) and Code
            Meaning (64), in printable ASCII without backslash (DICOM PS3.3 section 8).

    Raises:
        ValueError: not three parts, or a part is empty, too long or holds other characters.
    """
    parts = [part.strip() for part in text.split("^")]
    if len(parts) != 3:
        raise ValueError(f"A code must read 'code^scheme^meaning', such as {DEFAULT_TYPE!r}, got {text!r}.")
    for (name, limit), part in zip(_LIMITS.items(), parts, strict=True):
        if not (0 < len(part) <= limit and part.isascii() and part.isprintable() and "\\" not in part):
            raise ValueError(
                f"The {name} of a coded concept must be 1 to {limit} printable ASCII characters without backslash, "
                f"got {part!r} in {text!r}."
            )
    return CodedConcept(*parts)


def private_scheme_item() -> CodingSchemeIdentificationItem:
    """What an object that uses our private codes says about their scheme."""
    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="Private codes of monai_anomalyclip",
        responsible_organization="monai_anomalyclip authors",
    )
