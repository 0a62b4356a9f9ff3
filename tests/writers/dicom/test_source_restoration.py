# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What all four objects have in common: validity, patient and study, references, and nothing else of the source."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.errors import BytesLengthException

from monai_anomalyclip.data.dicom import group_instances, scan_files
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom import Provenance
from monai_anomalyclip.writers.dicom.source_restoration import patient_and_study, source_notes

WriteAll = Callable[..., dict[str, Path]]

# DICOM PS3.3 C.7.1.1, C.7.2.1, C.7.2.2: the texts among them that the phantoms carry
PATIENT_AND_STUDY = {
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientComments", "OtherPatientNames",
    "AdditionalPatientHistory", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName",
}  # fmt: skip


def elements(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item)


@pytest.mark.parametrize(
    "name",
    [
        "regular", "oblique", "sagittal", "gaps", "irregular", "tilt", "duplicates", "one place", "single", "enhanced",
        "legacy enhanced", "big endian", "colour",
    ],
)  # fmt: skip
def test_objects_of_stacks_are_valid(
    stacks: dict[str, DicomSeries],
    name: str,
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    assert_valid: Callable[..., None],
) -> None:
    paths = write_all(stacks[name], tmp_path, provenance)
    assert len(paths) == 4
    assert_valid(list(paths.values()), stacks[name])


@pytest.mark.parametrize("name", ["DX", "CR", "MG", "US", "ES", "XC", "OT", "cine"])
def test_objects_of_pictures_are_valid(
    pictures: dict[str, DicomSeries],
    cine: DicomSeries,
    name: str,
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    assert_valid: Callable[..., None],
) -> None:
    series = cine if name == "cine" else pictures[name]
    paths = write_all(series, tmp_path, provenance)
    assert len(paths) == (2 if name == "cine" else 3)
    assert_valid(list(paths.values()), series)


def test_patient_and_study_are_copied_and_no_other_text(
    stacks: dict[str, DicomSeries],
    phantoms: ModuleType,
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
) -> None:
    series = stacks["regular"]
    before = [deepcopy(instance.header) for instance in series.instances]
    paths = write_all(series, tmp_path, provenance)
    assert [instance.header for instance in series.instances] == before
    for path in paths.values():
        result = pydicom.dcmread(path)
        for keyword in PATIENT_AND_STUDY:
            assert result[keyword].value == series.header[keyword].value, keyword
        # The equipment that took the images may be named; nothing else of it is free text of a person.
        acquisition = result.ContributingEquipmentSequence.pop(0)
        assert "InstitutionName" not in acquisition
        assert "StationName" not in acquisition
        for element in elements(result):
            assert element.keyword in PATIENT_AND_STUDY or phantoms.CANARY not in str(element.value), element.keyword


def test_no_placeholder_survives(
    stacks: dict[str, DicomSeries], cine: DicomSeries, tmp_path: Path, provenance: Provenance, write_all: WriteAll
) -> None:
    for series in (stacks["duplicates"], stacks["enhanced"], stacks["single"], cine):
        for path in write_all(series, tmp_path, provenance, overwrite=True).values():
            uids = [str(element.value) for element in elements(pydicom.dcmread(path)) if element.VR == "UI"]
            assert len(uids) >= 9
            assert not [uid for uid in uids if uid.startswith("2.25.") and len(uid) < 30]


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_anonymised_and_malformed_sources(
    stacks: dict[str, DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    caplog: pytest.LogCaptureFixture,
) -> None:
    absent = ("PatientID", "AccessionNumber", "StudyID", "StudyTime", "ReferringPhysicianName", "Manufacturer")
    odd = {
        "PatientName": "Sampleton",  # no caret: highdicom quotes it in a warning
        "PatientSex": "Female",
        "PatientBirthDate": "1970-01-01",
        "StudyInstanceUID": "1.2.03.4",
        "FrameOfReferenceUID": "1.2.00.5",
        "SOPClassUID": "1.2.3.4.5",
        "SliceThickness": "",
        "SeriesNumber": "",
    }
    series = deepcopy(stacks["regular"])
    for instance in series.instances:
        for keyword in absent:
            del instance.header[keyword]
        for keyword, value in odd.items():
            element = instance.header[keyword]
            instance.header[keyword] = DataElement(element.tag, element.VR, value, validation_mode=IGNORE)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paths = write_all(series, tmp_path, provenance)
    assert not caplog.records
    assert not caught
    for path in paths.values():
        result = pydicom.dcmread(path)
        for keyword in absent[:5]:
            assert keyword in result
            assert result[keyword].is_empty
        assert (result.PatientName, result.PatientSex, result.PatientBirthDate) == ("Sampleton", "F", "19700101")
        assert result.StudyInstanceUID.is_valid
    assert len({pydicom.dcmread(path).StudyInstanceUID for path in paths.values()}) == 1
    assert pydicom.dcmread(paths["segmentation"]).FrameOfReferenceUID.is_valid


def test_removed_frame_of_reference(
    stacks: dict[str, DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    assert_valid: Callable[..., None],
) -> None:
    found = []
    for name in ("regular", "regular", "tilt"):
        series = deepcopy(stacks[name])
        for instance in series.instances:
            del instance.header.FrameOfReferenceUID
        paths = write_all(series, tmp_path, provenance, overwrite=True)
        for kind in ("segmentation", "parametric map"):
            found.append(pydicom.dcmread(paths[kind]).FrameOfReferenceUID)
            assert found[-1].is_valid
    assert len(set(found[:4])) == 1
    assert len(set(found[3:])) == 2


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_undecodable_values_are_left_out(
    phantoms: ModuleType,
    assemble: Callable[..., DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
) -> None:
    def edit(header: Dataset, index: int) -> None:
        header.PregnancyStatus = [1, 2]  # four bytes
        for keyword in ("SliceThickness", "SeriesNumber"):
            header[keyword] = DataElement(header[keyword].tag, header[keyword].VR, "1.0", validation_mode=IGNORE)

    files = phantoms.make_series(tmp_path / "source", edit=edit)
    for file in files:
        content = file.read_bytes()
        for true, broken in ((b"\xc0\x21US\x04", b"\xc0\x21FD\x04"), (b"DS\x04\0001.0 ", b"DS\x04\000ab  ")):
            assert content.count(true) == 1
            content = content.replace(true, broken)
        file.write_bytes(content.replace(b"IS\x04\0001.0 ", b"IS\x04\000xy  "))
    series = assemble(files)
    with pytest.raises(BytesLengthException):
        series.header.get("PregnancyStatus")
    assert (series.header.SliceThickness, series.header.SeriesNumber) == ("ab", "xy")
    for path in write_all(series, tmp_path, provenance).values():
        result = pydicom.dcmread(path)
        assert "PregnancyStatus" not in result
        assert result.PatientName == phantoms.CANARY
        assert result.SeriesNumber in (1000, 2000, 3000, 4000)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 192", "Müller^Jörg=山田^太郎"),
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_character_sets(
    phantoms: ModuleType,
    assemble: Callable[..., DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    character_set: str | list[str],
    name: str,
) -> None:
    def edit(header: Dataset, index: int) -> None:
        header.SpecificCharacterSet = character_set
        header.PatientName = name

    series = assemble(phantoms.make_series(tmp_path / "source", edit=edit))
    for path in write_all(series, tmp_path, provenance).values():
        assert str(pydicom.dcmread(path).PatientName) == name


INVALID = {
    "StudyDate": ("1994.06.13", "19940613"),
    "StudyTime": ("10:11:12.5", "101112.5"),
    "PatientBirthDate": ("19500231", ""),
    "PatientSex": ("0000", ""),
    "PatientAge": ("7Y", "007Y"),
    "StudyID": ("x" * 20, ""),
    "AccessionNumber": ("A\x07B", ""),
    "ReferringPhysicianName": ("a^b^c^d^e^f", ""),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_results_hold_valid_values_alone(
    stacks: dict[str, DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    run_tool: Callable[..., str],
) -> None:
    series = deepcopy(stacks["regular"])
    for instance in series.instances:
        for keyword, (value, _) in INVALID.items():
            tag = pydicom.datadict.tag_for_keyword(keyword)
            vr = pydicom.datadict.dictionary_VR(tag)
            instance.header[tag] = DataElement(tag, vr, value, validation_mode=IGNORE)
        instance.header.SOPInstanceUID = f"999{instance.header.SOPInstanceUID}"
    for path in write_all(series, tmp_path, provenance).values():
        result = pydicom.dcmread(path)
        for keyword, (_, expected) in INVALID.items():
            assert (str(result[keyword].value or "") if keyword in result else None) == expected, keyword
        report = run_tool("dciodvfy", "-new", path)
        assert "Error" not in report, report
    assert source_notes(series) == [
        "DICOM results rewrite some attributes, which are not valid or not the same in all files of the source: "
        "StudyDate, StudyTime, PatientAge.",
        "DICOM results leave out some attributes, which are not valid or not the same in all files of the source: "
        "AccessionNumber, ReferringPhysicianName, PatientBirthDate, PatientSex, StudyID.",
        "UIDs of the source are not valid: DICOM results name others, by which no archive finds it.",
    ]


def test_text_without_a_character_set(
    phantoms: ModuleType, assemble: Callable[..., DicomSeries], tmp_path: Path, provenance: Provenance
) -> None:
    """Of bytes that are no ASCII only UTF-8 is sure; the Latin-1 of a name could be Cyrillic."""
    found = []
    for name, encoding in (("M\u00fcller^J\u00f6rg", "utf-8"), ("M\u00fcller^J\u00f6rg", "latin-1")):
        files = phantoms.make_series(tmp_path / encoding, count=1, text="CANARY^ZEBRA")
        coded = name.encode(encoding)
        for file in files:
            header = pydicom.dcmread(file)
            header.PatientName = "N" * len(coded)
            del header.SpecificCharacterSet
            header.save_as(file)
            file.write_bytes(file.read_bytes().replace(b"N" * len(coded), coded))
        modules, notes = patient_and_study(assemble(files, "single slice"))
        found.append((str(modules.get("PatientName", "")), [note.rsplit(" ", 1)[1] for note in notes]))
    assert found == [("M\u00fcller^J\u00f6rg", ["PatientName."]), ("", ["PatientName."])]


def test_files_that_differ_are_told_once_where_they_agree(
    stacks: dict[str, DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    run_tool: Callable[..., str],
) -> None:
    series = deepcopy(stacks["regular"])
    for number, instance in enumerate(series.instances):
        instance.header.FrameOfReferenceUID = f"1.2.3.{number}"
        instance.header.SeriesInstanceUID = f"1.2.4.{number % 2}"
        instance.header.PatientID = f"P{number}"
        if number:
            instance.header.Manufacturer = "other"
    for kind, path in write_all(series, tmp_path, provenance).items():
        result = pydicom.dcmread(path)
        assert not result.PatientID
        assert "Error" not in run_tool("dciodvfy", "-new", path)
        if kind in ("segmentation", "parametric map"):
            assert not result.FrameOfReferenceUID.startswith("1.2.3.")
            references = {item.SeriesInstanceUID: item for item in result.ReferencedSeriesSequence}
            assert {uid: len(item.ReferencedInstanceSequence) for uid, item in references.items()} == {
                "1.2.4.0": 3,
                "1.2.4.1": 3,
            }


def test_source_without_uid_is_refused(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, write_all: WriteAll
) -> None:
    series = deepcopy(stacks["regular"])
    series.instances[2].header.SOPInstanceUID = ""
    with pytest.raises(ValueError, match="no SOPInstanceUID"):
        write_all(series, tmp_path, provenance)
    assert not list(tmp_path.iterdir())


def test_part_of_a_multi_frame_file(
    stacks: dict[str, DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    assert_valid: Callable[..., None],
) -> None:
    whole = stacks["enhanced"]
    chosen = [1, 3, 5]
    assert whole.geometry.positions is not None
    geometry = replace(whole.geometry, positions=whole.geometry.positions[chosen], slice_spacing=6.0)
    series = replace(whole, frames=tuple(whole.frames[i] for i in chosen), geometry=geometry)
    paths = write_all(series, tmp_path, provenance)
    assert_valid(list(paths.values()), series)
    for kind in ("segmentation", "parametric map"):
        result = pydicom.dcmread(paths[kind])
        sources = [
            item.DerivationImageSequence[0].SourceImageSequence[0] for item in result.PerFrameFunctionalGroupsSequence
        ]
        assert [source.ReferencedFrameNumber for source in sources] == [2, 4, 6]
        assert {source.ReferencedSOPInstanceUID for source in sources} == {whole.header.SOPInstanceUID}


def test_number_of_frames_in_a_single_frame_class(
    stacks: dict[str, DicomSeries],
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    assert_valid: Callable[..., None],
) -> None:
    series = deepcopy(stacks["regular"])
    for instance in series.instances:
        instance.header.NumberOfFrames = 1
    assert_valid(list(write_all(series, tmp_path, provenance).values()), series)


@pytest.mark.parametrize(
    "folder",
    [
        "dicom2nifti/anatomical/001",
        "dicom2nifti/failing/gantrytilting/001",
        "dicom2nifti/generic/rgb/001",
        "dcm_qa/agfa/Agfa",
    ],
)
def test_real_series(
    real_data: Path,
    assemble: Callable[..., DicomSeries],
    folder: str,
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    assert_valid: Callable[..., None],
) -> None:
    series = assemble(sorted((real_data / "dicom" / folder).iterdir())[:3], "irregular spacing")
    paths = write_all(series, tmp_path, provenance)
    assert len(paths) == 4
    # The sources' ages, sexes and UIDs that are not valid are written as valid ones, or not at all.
    inherited = "different value - Element=<PatientAge>|present in one instance but not the other"
    if folder == "dcm_qa/agfa/Agfa":
        inherited += r"|Missing \w+ that was referenced - 2\.25\."
    assert_valid(list(paths.values()), series, inherited)


def one_stack_of_each_modality(folder: Path) -> list[DicomSeries]:
    stacks, _ = group_instances(scan_files([folder]).instances)
    return list({(one.modality, one.kind, one.header.SOPClassUID): one for one in stacks}.values())


@pytest.mark.parametrize("collection", ["cornerstone_wado", "pydicom_data", "dcm_qa", "dicom2nifti"])
def test_results_of_real_files_are_valid(
    real_data: Path,
    collection: str,
    tmp_path: Path,
    provenance: Provenance,
    write_all: WriteAll,
    run_tool: Callable[..., str],
) -> None:
    found = 0
    for series in one_stack_of_each_modality(real_data / "dicom" / collection):
        for path in write_all(series, tmp_path, provenance, overwrite=True).values():
            report = run_tool("dciodvfy", "-new", path)
            assert "Error" not in report, report
            found += 1
    assert found >= 4
