# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag

from monai_anomalyclip.writers.dicom.valid_values import known_character_set, valid_element, valid_text, valid_uid


def made_valid(keyword: str, value: object) -> object:
    """The value that is written, None if the element is left out."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    element = valid_element(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE), declared=True)
    return None if element is None else element.value


@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:Value length", "ignore:The value length")
@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("StudyDate", "20240229", "20240229"),
        ("StudyDate", "1994.06.13", "19940613"),
        ("StudyDate", "1994-06-13", "19940613"),
        ("StudyDate", "13.06.1994", None),
        ("StudyDate", "20230229", None),
        ("StudyDate", "00000000", None),
        ("StudyTime", "10:11", "1011"),
        ("StudyTime", "101112.123456", "101112.123456"),
        ("StudyTime", "251112", None),
        ("StudyTime", "10:1112", None),
        ("PatientAge", "22y ", "022Y"),
        ("PatientAge", "22", None),
        ("PatientSex", "female", "F"),
        ("PatientSex", "0000", None),
        ("StudyID", "x" * 16, "x" * 16),
        ("StudyID", "x" * 17, None),
        ("PatientName", "Doe^Jane", "Doe^Jane"),
        ("PatientName", "Doe^Jane\x07", None),
        ("PatientID", ["A", "B"], None),
        ("PatientComments", "two\r\nlines", "two\r\nlines"),
        ("PatientID", "two\nlines", None),
        ("StudyDescription", "M\ufffdller", None),
        ("AcquisitionDateTime", "20240229101112.5+0100", "20240229101112.5+0100"),
        ("AcquisitionDateTime", "202402291011 ", "202402291011"),
        ("AcquisitionDateTime", "202402-0500", "202402-0500"),
        ("AcquisitionDateTime", "2024", "2024"),  # PS3.5 6.2: the end may be left out
        ("AcquisitionDateTime", "202413", None),
        ("AcquisitionDateTime", "20230229", None),
        ("AcquisitionDateTime", "20240229251112", None),
        ("AcquisitionDateTime", "2024022910.5", None),
        ("AcquisitionDateTime", "2024-02-29 10:11", None),
        ("PatientWeight", " 70.50 ", "70.50"),
        ("PatientWeight", "70.12345678901111111", "70.1234567890111"),
        ("PatientWeight", "1e999", None),
        ("PatientWeight", "nan", None),
        ("SeriesNumber", "-2147483648", "-2147483648"),
        ("SeriesNumber", "2147483648", None),
        ("SeriesNumber", "3.5", None),
        ("PregnancyStatus", 4, 4),
        ("PregnancyStatus", 9, None),
    ],
)
def test_one_meaning_is_written_and_no_other(keyword: str, value: object, expected: object) -> None:
    assert made_valid(keyword, value) == expected


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2", "2.25.329800735698586629295641978511506172918", "0.39.1", "1.0"])
def test_uids_are_kept(uid: str) -> None:
    assert valid_uid(uid) == uid


@pytest.mark.parametrize("uid", ["999.999.2", "1.2.03", "1.40.1", "dccc95", "1", "1..2", "2." + "1" * 63, "3.1"])
def test_what_is_no_uid_becomes_one_that_is_always_the_same(uid: str) -> None:
    assert valid_uid(uid).startswith("2.25.")
    assert valid_uid(uid) == valid_uid(uid) != valid_uid(uid + "1")


def test_text_of_no_declared_set() -> None:
    assert valid_text("plain", declared=False) == "plain"
    assert valid_text("M\u00fc", declared=True) == "M\u00fc"
    assert valid_text("M\u00c3\u00bc", declared=False) == "M\u00fc"  # UTF-8 that was read as Latin-1
    assert valid_text("M\u00fc", declared=False) is None


def test_sequences_are_taken_as_a_whole_or_not_at_all() -> None:
    code, half = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "one"
    half.CodeValue = "1"
    assert made_valid("ProcedureCodeSequence", [code]) == [code]
    assert made_valid("ProcedureCodeSequence", [code, half]) is None
    reference = Dataset()
    reference.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    assert made_valid("ReferencedStudySequence", [reference]) is None
    weight = Dataset()
    weight.PatientID, weight.PatientSize = "A", "1.7"
    assert made_valid("OtherPatientIDsSequence", [weight]) == [weight]
    private, empty = Dataset(), Dataset()
    private.update(weight)
    private.private_block(0x0009, "maker", create=True).add_new(1, "LO", "M\ufffdller")
    assert made_valid("OtherPatientIDsSequence", [private]) == [weight]
    assert made_valid("OtherPatientIDsSequence", [empty]) is None
    weight.PatientID = "two\nlines"
    assert made_valid("OtherPatientIDsSequence", [weight]) is None


@pytest.mark.parametrize(
    ("vr", "value", "known"),
    [
        ("CS", b"ISO_IR 100", True),
        ("CS", b"ISO 2022 IR 6\\ISO 2022 IR 87 ", True),
        ("CS", b"", True),
        ("CS", b"CP437 ", False),
        ("US", b"\1\0", False),
        ("US", b"\1", False),
        ("SQ", b"odd", False),
    ],
)
def test_a_character_set_may_be_anything(vr: str, value: bytes, known: bool) -> None:
    """As a file holds it: what is named is only decoded when it is asked for."""
    header, tag = Dataset(), Tag("SpecificCharacterSet")
    header[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    assert known_character_set(header) is known
