# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Values that a result takes from its source, made valid: rewritten where they mean one thing only, else left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat, format_number_as_ds

from monai_anomalyclip.writers.dicom.provenance import derived_uid

__all__ = ["known_character_set", "valid_element", "valid_text", "valid_uid"]

_LONGEST = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240, "UT": 2**32 - 2, "UC": 2**32 - 2}
_OF_LINES = ("ST", "LT", "UT")
_ENUMERATED: dict[str, frozenset[str]] = {
    keyword: frozenset(values.split())
    for keyword, values in {
        "PatientSex": "M F O",
        "PatientSexNeutered": "ALTERED UNALTERED",
        "PatientIdentityRemoved": "YES NO",
        "QualityControlSubject": "YES NO",
        "SmokingStatus": "YES NO UNKNOWN",
        "TypeOfPatientID": "TEXT RFID BARCODE",
        "LongitudinalTemporalInformationModified": "UNMODIFIED MODIFIED REMOVED",
        "PregnancyStatus": "1 2 3 4",
        "LossyImageCompression": "00 01",
    }.items()
}
_SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O"}


def valid_uid(uid: object) -> str:
    """A UID as it is, or one that always belongs to it where it is none (DICOM PS3.5 section 9.1).

    Example:
        >>> valid_uid("1.2.840.10008.1.1")
        '1.2.840.10008.1.1'
    """
    text = str(uid)
    parts = text.split(".")
    sound = len(text) <= 64 and len(parts) > 1 and all(re.fullmatch(r"0|[1-9][0-9]*", part) for part in parts)
    if sound and (parts[0] == "2" or (parts[0] in "01" and int(parts[1]) < 40)):
        return text
    return derived_uid(f"instead of the invalid UID {text}")


def known_character_set(header: Dataset) -> bool:
    """Whether the character set that a header names is one of the standard, or none is needed."""
    try:
        named = header.get("SpecificCharacterSet") or ""
        return all(term in python_encoding for term in ([named] if isinstance(named, str) else named))
    except Exception:  # malformed elements make pydicom raise nearly anything
        return False


def valid_text(text: str, *, declared: bool) -> str | None:
    """A text that was decoded as it should, or None.

    Args:
        text: as pydicom decodes it.
        declared: whether the file states a character set. Without one pydicom takes each byte for a character; bytes
            that are UTF-8 can hardly be anything else, any others may be anything.
    """
    if "\ufffd" in text:
        return None
    if declared or text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return None


def valid_element(element: DataElement, *, declared: bool) -> DataElement | None:
    """A valid element with the value of one that need not be, or None.

    Args:
        element: of a source; empty ones are valid.
        declared: whether the file states a known character set.
    """
    if element.VR == "SQ":
        items = [_valid_item(item, declared=declared) for item in element.value]
        kept = [item for item in items if item is not None]
        return DataElement(element.tag, "SQ", kept) if kept and len(kept) == len(items) else None
    values = _values(element)
    if not values:
        return DataElement(element.tag, element.VR, None)
    if dictionary_VM(element.tag) == "1" and len(values) > 1:
        return None
    read = _READERS.get(element.VR)
    found: list[Any] = []
    for value in values:
        text = valid_text(str(value), declared=declared)
        result = text if read is None or text is None else read(text)
        if result is None or ((choice := _ENUMERATED.get(element.keyword)) and result not in choice):
            return None
        found.append(result)
    if read is None:
        return element  # binary numbers: of these all values are valid
    return DataElement(element.tag, element.VR, found[0] if len(found) == 1 else found)


def _values(element: DataElement) -> Sequence[Any]:
    value = element.value
    if value is None or (hasattr(value, "__len__") and len(value) == 0) or str(value).strip() == "":
        return []
    return list(value) if element.VM > 1 else [value]


def _valid_item(item: Dataset, *, declared: bool) -> Dataset | None:
    result = Dataset()
    for element in item:
        if element.tag.is_private:
            continue
        valid = valid_element(element, declared=declared)
        if valid is None:
            return None
        result.add(valid)
    code = ("CodeValue", "LongCodeValue", "URNCodeValue")
    if "CodeMeaning" in result or any(keyword in result for keyword in code):
        whole = result.get("CodeMeaning") and (
            result.get("URNCodeValue")
            or (result.get("CodingSchemeDesignator") and any(result.get(keyword) for keyword in code))
        )
        return result if whole else None
    pair = ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")
    if any(keyword in result for keyword in pair) and not all(result.get(keyword) for keyword in pair):
        return None
    return result if len(result) else None


def _date(text: str) -> str | None:
    # ACR-NEMA separated by dots; the year first, the order is clear with other signs, too.
    match = re.fullmatch(r"(\d{4})([.\-/]?)(\d\d)\2(\d\d)", text.strip(" \0"))
    try:
        return date(int(match[1]), int(match[3]), int(match[4])).strftime("%Y%m%d").zfill(8) if match else None
    except ValueError:
        return None


def _time(text: str) -> str | None:
    match = re.fullmatch(r"(\d\d)(?:(:?)(\d\d)(?:\2(\d\d)(\.\d{1,6})?)?)?", text.strip(" \0"))
    if not match or int(match[1]) > 23 or int(match[3] or 0) > 59 or int(match[4] or 0) > 60:
        return None
    return "".join(part or "" for part in match.group(1, 3, 4, 5))


def _date_time(text: str) -> str | None:
    match = re.fullmatch(r"((?:\d\d){2,7})(\.\d{1,6})?([+-]\d{4})?", text.strip(" \0"))
    if not match:
        return None
    day, time = match[1][:8], match[1][8:] + (match[2] or "")
    whole = day + "0101"[len(day) - 4 :]  # what is not known is left out from the end
    return match[0] if _date(whole) and (not time or _time(time)) else None


def _age(text: str) -> str | None:
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text.strip(" \0").upper())
    return f"{int(match[1]):03d}{match[2]}" if match else None


def _code_string(text: str) -> str | None:
    code = text.strip(" \0").upper()
    code = _SEXES.get(code, code)
    return code if re.fullmatch(r"[A-Z0-9 _]{1,16}", code) else None


def _decimal(text: str) -> DSfloat | None:
    if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text):
        return None
    number = float(text)
    if number in (float("inf"), float("-inf")):
        return None
    stripped = text.strip()
    return DSfloat(stripped if len(stripped) <= 16 else format_number_as_ds(number))


def _whole(text: str) -> str | None:
    stripped = text.strip(" \0")
    return stripped if re.fullmatch(r"[+-]?\d{1,12}", stripped) and -(2**31) <= int(stripped) < 2**31 else None


def _name(text: str) -> str | None:
    groups = text.split("=")
    sound = len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    return text if sound and _printable(text, "") else None


def _printable(text: str, allowed: str) -> bool:
    return all((ord(character) >= 32 and ord(character) != 127) or character in allowed for character in text)


def _text(vr: str) -> Callable[[str], str | None]:
    lines = "\r\n\t\f" if vr in _OF_LINES else ""

    def read(text: str) -> str | None:
        text = text.rstrip(" \0")
        return text if len(text) <= _LONGEST[vr] and _printable(text, lines) else None

    return read


_READERS: dict[str, Callable[[str], Any]] = {
    "DA": _date,
    "TM": _time,
    "DT": _date_time,
    "AS": _age,
    "CS": _code_string,
    "DS": _decimal,
    "IS": _whole,
    "UI": valid_uid,
    "PN": _name,
    **{vr: _text(vr) for vr in _LONGEST},
}
