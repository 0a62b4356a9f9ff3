# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import re
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pydicom
import pytest

from monai_anomalyclip.cli import main

# The attributes of the modules Patient, Clinical Trial Subject, General Study, Patient Study and Clinical Trial Study
# (DICOM PS3.3 C.7.1.1, C.7.1.3, C.7.2.1 to C.7.2.3) that hold text.
PATIENT_AND_STUDY = {
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar", "OtherPatientNames", "OtherPatientIDsSequence", "PatientComments",
    "PatientSpeciesDescription", "PatientBreedDescription", "StrainDescription", "StrainNomenclature",
    "StrainAdditionalInformation", "ResponsiblePerson", "ResponsibleOrganization", "DeidentificationMethod",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "IssuerOfClinicalTrialProtocolID",
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "IssuerOfClinicalTrialSiteID", "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID", "IssuerOfClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "IssuerOfClinicalTrialSubjectReadingID", "ClinicalTrialProtocolEthicsCommitteeName",
    "ClinicalTrialProtocolEthicsCommitteeApprovalNumber", "StudyID", "AccessionNumber", "StudyDescription",
    "ReferringPhysicianName", "ReferringPhysicianIdentificationSequence", "ConsultingPhysicianName",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingService", "ReferencedStudySequence",
    "ProcedureCodeSequence", "AdmittingDiagnosesDescription", "AdmissionID", "ServiceEpisodeID",
    "ServiceEpisodeDescription", "ReasonForVisit", "MedicalAlerts", "Allergies", "Occupation",
    "AdditionalPatientHistory", "PatientState", "LastMenstrualDate", "ClinicalTrialTimePointID",
    "IssuerOfClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
}  # fmt: skip
SHARED = {"PositionReferenceIndicator"}
"""Of the Frame of Reference module (C.7.4.1), which all series in one frame of reference share."""

EQUIPMENT = {"Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions"}
"""Of the scanner, not of a person: Contributing Equipment names it."""

OPTIONS = ("--outputs", "default,pm,sc", "--deterministic-uids")


class Run(NamedTuple):
    """What a run over the inputs left and said."""

    inputs: Path
    output: Path
    said: str
    status: int


@pytest.fixture(scope="module")
def named() -> ModuleType:
    import named_inputs

    return named_inputs


@pytest.fixture(scope="module")
def run(
    named: ModuleType, predict_apart: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Everything at once, in a process of its own, as verbose as it can be."""
    folder = tmp_path_factory.mktemp("privacy")
    inputs = named.make_inputs(folder / "in")
    process = predict_apart(inputs, folder / "out", *OPTIONS, "--verbose")
    said = "".join(process.communicate())
    return Run(inputs, folder / "out", said, process.returncode)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_search_finds_the_name_where_it_is(named: ModuleType, run: Run) -> None:
    sources = [path for path in files_of(run.inputs) if path.suffix != ".mp4"]
    assert len(sources) > 20
    for path in sources:
        assert any(named.holds(content) for _, content in named.texts_of(path)), path
    header = pydicom.dcmread(next(run.inputs.rglob("*a00000.dcm")))
    held = named.where_held(header)
    assert len(held) > 700
    assert {"PatientName", "ProtocolName", "RequestAttributesSequence.PatientID"} <= held
    assert named.holds(named.NAME.upper().encode("utf-16-le"))
    assert len(named.identifying_uids(run.inputs)) == 30


def test_run_is_complete(run: Run) -> None:
    """What could be read was read, and the rest failed, each for a reason that is said."""
    assert run.status == 3
    assert "Traceback" not in run.said
    assert len(list(run.output.glob("*_sr.dcm"))) == 6
    assert len(list(run.output.glob("*_overlay.mp4"))) == 1
    assert len(list(run.output.glob("*_heat.png"))) == 7
    assert re.search(r"\d+ results written, \d+ inputs failed", run.said)


def test_nothing_said_names_the_patient(named: ModuleType, run: Run) -> None:
    assert not named.holds(run.said), [line for line in run.said.splitlines() if named.holds(line)]
    assert not [uid for uid in named.identifying_uids(run.inputs) if uid in run.said]
    assert str(run.inputs) not in run.said


def test_no_file_but_dicom_names_the_patient(named: ModuleType, run: Run) -> None:
    uids = [uid.encode() for uid in named.identifying_uids(run.inputs)]
    seen = set()
    for path in files_of(run.output):
        assert not named.holds(path.relative_to(run.output).as_posix())
        if path.suffix == ".dcm":
            continue
        seen.add(path.suffix)
        for what, content in named.texts_of(path):
            assert not named.holds(content), what
            assert not [uid for uid in uids if uid in content], what
            assert str(run.inputs).encode() not in content, what
        if path.suffix == ".png":
            assert set(named.png_chunks(path.read_bytes())) <= {"IHDR", "IDAT", "IEND"}
    assert seen == {".csv", ".gz", ".html", ".jpg", ".json", ".mp4", ".png", ".txt"}


def test_film_has_no_metadata(run: Run) -> None:
    av = pytest.importorskip("av")
    (path,) = run.output.glob("*.mp4")
    with av.open(str(path)) as container:
        found = {**container.metadata, **container.streams.video[0].metadata}
    assert set(found) <= {"major_brand", "minor_version", "compatible_brands", "encoder", "language", "handler_name",
                          "vendor_id"}  # fmt: skip


def test_dicom_objects_hold_the_name_in_patient_and_study_alone(named: ModuleType, run: Run) -> None:
    objects = [path for path in files_of(run.output) if path.suffix == ".dcm"]
    assert len(objects) > 12
    for path in objects:
        result = pydicom.dcmread(path)
        held = named.where_held(result)
        assert {"PatientName", "PatientID", "StudyDescription"} <= held  # copied, for archives to match
        allowed = PATIENT_AND_STUDY | SHARED | {f"ContributingEquipmentSequence.{keyword}" for keyword in EQUIPMENT}
        assert not [name for name in held if not {name, name.partition(".")[0]} & allowed], path.name
        assert not named.holds(path.read_bytes()[:132])
        assert not [element for element in result.iterall() if element.tag.is_private]
        assert named.where_held(result.file_meta) == set()


def test_results_are_for_their_owner_alone(run: Run) -> None:
    paths = [run.output, *run.output.rglob("*")]
    assert not [path.relative_to(run.output) for path in paths if path.stat().st_mode & 0o077]


def test_inspect_names_nobody(named: ModuleType, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ((), ("--json",)):
        assert main(["inspect", str(run.inputs), *options]) == 3  # the damaged ones
        said = "".join(capsys.readouterr())
        assert "ct_" in said
        assert not named.holds(said), [line for line in said.splitlines() if named.holds(line)]
        assert not [uid for uid in named.identifying_uids(run.inputs) if uid in said]
        assert str(run.inputs) not in said


@pytest.mark.parametrize("preset", ["auto", "dicom"])
def test_no_logger_and_no_warning_names_the_patient(
    named: ModuleType,
    run: Run,
    predict: Callable[..., int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    preset: str,
) -> None:
    """Every logger of every library, down to DEBUG, and all warnings."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert predict(run.inputs, tmp_path / "out", *OPTIONS, "--preset", preset, "--verbose") == 3
    said = [*capsys.readouterr(), *(str(warning.message) for warning in caught)]
    assert not [text for text in said if named.holds(text)]
    assert len(caplog.records) > 100
    logged = [f"{record.name} {record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records]
    assert not [text for text in logged if named.holds(text)]
    for path in files_of(tmp_path / "out"):
        if path.suffix != ".dcm":
            assert not [what for what, content in named.texts_of(path) if named.holds(content)]


@pytest.mark.parametrize(
    "pattern",
    [
        "*g00000.dcm",
        "*h00000.dcm",
        "*i00000.dcm",
        "* junk.dcm",
        " cut.png",
        " cut.tif",
        " cut.nii",
        "*_two_forms.nii.gz",
        "*.mp4",
    ],
)
def test_a_single_damaged_file(
    named: ModuleType,
    run: Run,
    predict: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pattern: str,
) -> None:
    """Of a path that the user typed, the reason may repeat the last part, and nothing else the text of the file."""
    (path,) = next(run.inputs.rglob("broken*")).glob(f"{named.NAME}{pattern}")
    plain = tmp_path / f"file{''.join(path.suffixes)}"
    plain.write_bytes(path.read_bytes())
    assert predict(plain, tmp_path / "out") == 3
    said = "".join(capsys.readouterr())
    assert not named.holds(said), said
    assert "Traceback" not in said
    written = files_of(tmp_path / "out") if (tmp_path / "out").exists() else []
    assert not [what for file in written for what, content in named.texts_of(file) if named.holds(content)]


def test_the_name_in_the_place_of_a_number_or_a_code(
    named: ModuleType,
    predict: Callable[..., int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a value should be of another kind, libraries quote it in their exceptions."""
    folder = named.make_misplaced(tmp_path / "in")
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    main(["inspect", str(folder)])
    predict(folder, tmp_path / "out", "--outputs", "nifti,seg,sr,pm,sc")
    said = [*"".join(capsys.readouterr()).splitlines(), *(record.getMessage() for record in caplog.records)]
    assert not [line for line in said if named.holds(line)]
    written = files_of(tmp_path / "out")
    assert len([path for path in written if path.suffix == ".dcm"]) > 60
    for path in written:
        assert not named.holds(path.name)
        if path.suffix != ".dcm":
            assert not [what for what, content in named.texts_of(path) if named.holds(content)]
