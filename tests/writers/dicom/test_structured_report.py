# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom import Provenance, ReportedFinding, write_report

SCORES = [0.1, 0.8, 0.3, 0.8, 0.2, 0.05]  # a tie: the earlier frame comes first


def groups_of(path: Path) -> list[Any]:
    report = hd.sr.srread(path)
    assert isinstance(report, hd.sr.Comprehensive3DSR)
    groups: list[Any] = report.content.get_image_measurement_groups()
    return groups


def values(group: Any) -> dict[str, float]:
    return {item.name.value: item.value for item in group.get_measurements()}


def references(group: Any) -> list[tuple[str, str, list[int] | None]]:
    return [
        (image.referenced_sop_class_uid, image.referenced_sop_instance_uid, image.referenced_frame_numbers)
        for image in group.source_images
    ]


@pytest.mark.parametrize("name", ["regular", "oblique", "duplicates"])
def test_scores_and_slices(stacks: dict[str, DicomSeries], name: str, tmp_path: Path, provenance: Provenance) -> None:
    series = stacks[name]
    scores = np.array([*SCORES, 0.0, 0.0][: len(series.frames)], np.float32)
    path = write_report(series, scores, tmp_path / "sr.dcm", score=0.75, threshold=0.5, provenance=provenance, top=3)
    whole, *slices = groups_of(path)
    assert values(whole) == {"anomaly-score": 0.75, "threshold": 0.5}
    headers = [frame.instance.header for frame in series.frames]
    assert references(whole) == [(header.SOPClassUID, header.SOPInstanceUID, None) for header in headers]
    assert [values(group) for group in slices] == [{"anomaly-score": scores[i]} for i in (1, 3, 2)]
    assert [references(group) for group in slices] == [
        [(headers[i].SOPClassUID, headers[i].SOPInstanceUID, None)] for i in (1, 3, 2)
    ]
    assert [group.tracking_identifier for group in (whole, *slices)] == [
        "series", *(f"frame {number} of {len(headers)}" for number in (2, 4, 3)),
    ]  # fmt: skip


def test_each_number_names_its_images(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    """OHIF 3.10 stops at a number without content of its own."""
    series = stacks["regular"]
    path = write_report(series, SCORES, tmp_path / "sr.dcm", score=0.75, threshold=0.5, provenance=provenance, top=1)
    uids = [frame.instance.header.SOPInstanceUID for frame in series.frames]
    whole, first = groups_of(path)
    worst = [uids[int(np.argmax(SCORES))]]  # the slice that the score of the series comes from, and where to look first
    for group in (whole, first):
        for measurement in group.get_measurements():
            assert [image.referenced_sop_instance_uid for image in measurement.referenced_images] == worst
    assert [uid for _, uid, _ in references(whole)] == uids


@pytest.mark.parametrize("name", ["enhanced", "cine"])
def test_frames_of_a_multi_frame_file(
    stacks: dict[str, DicomSeries], cine: DicomSeries, name: str, tmp_path: Path, provenance: Provenance
) -> None:
    series = cine if name == "cine" else stacks[name]
    n = len(series.frames)
    path = write_report(
        series, SCORES[:n], tmp_path / "sr.dcm", score=0.8, threshold=None, provenance=provenance, top=2
    )
    whole, *slices = groups_of(path)
    assert values(whole) == {"anomaly-score": 0.8}
    uids = series.header.SOPClassUID, series.header.SOPInstanceUID
    assert references(whole) == [(*uids, None)]  # all frames
    assert [references(group) for group in slices] == [[(*uids, [2])], [(*uids, [4])]]
    evidence = hd.sr.srread(path).get_evidence()
    assert evidence == [(series.header.StudyInstanceUID, series.series_uid, uids[1], uids[0])]


def test_part_of_the_frames(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    series = replace(stacks["enhanced"], frames=stacks["enhanced"].frames[1:4])
    path = write_report(series, [0, 0, 1], tmp_path / "sr.dcm", score=1, threshold=None, provenance=provenance, top=1)
    uids = series.header.SOPClassUID, series.header.SOPInstanceUID
    assert [references(group) for group in groups_of(path)] == [[(*uids, [2, 3, 4])], [(*uids, [4])]]


def test_findings_are_groups_of_their_own(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, run_tool: Callable[..., str]
) -> None:
    series = stacks["regular"]
    findings = [ReportedFinding(3, [1, 2], 0.9, 1.25, "near the edge"), ReportedFinding(1, [4], 0.6)]
    given = {"score": 0.75, "threshold": 0.5, "provenance": provenance, "top": 0}
    path = write_report(series, SCORES, tmp_path / "sr.dcm", findings=findings, **given)
    _, *groups = groups_of(path)
    assert [group.tracking_identifier for group in groups] == ["finding 3", "finding 1"]
    assert [values(group) for group in groups] == [
        {"anomaly-map": 0.9, "118565006": 1.25}, {"anomaly-map": 0.6},
    ]  # fmt: skip
    headers = [frame.instance.header for frame in series.frames]
    assert references(groups[0]) == [(headers[i].SOPClassUID, headers[i].SOPInstanceUID, None) for i in (1, 2)]
    assert "Accepted by a reviewer. near the edge" in hd.sr.srread(path).to_json()
    run_tool("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    assert len(json.loads((tmp_path / "sr.json").read_text())["Measurements"]) == 3
    with pytest.raises(ValueError, match="The series has 6 frames, a finding lies on frame 6"):
        write_report(series, SCORES, tmp_path / "x.dcm", findings=[ReportedFinding(1, [6], 0.6)], **given)


@pytest.mark.parametrize(("top", "expected"), [(0, 1), (1, 2), (6, 7), (100, 7)])
def test_number_of_slices(
    stacks: dict[str, DicomSeries], top: int, expected: int, tmp_path: Path, provenance: Provenance
) -> None:
    path = tmp_path / "sr.dcm"
    write_report(stacks["regular"], SCORES, path, score=0, threshold=0.5, provenance=provenance, top=top)
    assert len(groups_of(path)) == expected


def test_what_dcmqi_reads(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, run_tool: Callable[..., str]
) -> None:
    path = tmp_path / "sr.dcm"
    write_report(stacks["regular"], SCORES, path, score=0.75, threshold=0.5, provenance=provenance)
    run_tool("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    found = json.loads((tmp_path / "sr.json").read_text())
    assert (found["CompletionFlag"], found["VerificationFlag"]) == ("PARTIAL", "UNVERIFIED")
    measured = [
        [(item["quantity"]["CodeValue"], float(item["value"])) for item in group["measurementItems"]]
        for group in found["Measurements"]
    ]
    assert measured == [
        [("anomaly-score", 0.75), ("threshold", 0.5)],
        *([("anomaly-score", score)] for score in (0.8, 0.8, 0.3, 0.2, 0.1)),
    ]
    units = found["Measurements"][0]["measurementItems"][0]["units"]
    assert (units["CodeValue"], units["CodingSchemeDesignator"]) == ("1", "UCUM")
    assert found["Measurements"][1]["measurementAlgorithmIdentification"]["AlgorithmName"] == "AnomalyCLIP"


def test_preliminary_and_for_research(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "sr.dcm"
    write_report(stacks["regular"], SCORES, path, score=0.75, threshold=0.5, provenance=provenance)
    result = pydicom.dcmread(path)
    assert (result.CompletionFlag, result.PreliminaryFlag, result.VerificationFlag) == (
        "PARTIAL", "PRELIMINARY", "UNVERIFIED",
    )  # fmt: skip
    assert result.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert result.ContentSequence[-1].TextValue == RESEARCH_USE_ONLY
    of_demonstration = replace(provenance, caution="Its scores on real scans are meaningless.")
    write_report(stacks["regular"], SCORES, tmp_path / "d.dcm", score=0.75, threshold=0.5, provenance=of_demonstration)
    said = pydicom.dcmread(tmp_path / "d.dcm").ContentSequence[-1].TextValue
    assert said == f"{RESEARCH_USE_ONLY} Its scores on real scans are meaningless."
    scheme = result.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == "99ANOMALYCLIP"
    observer = hd.sr.srread(path).content.get_observer_contexts()[0].observer_identifying_attributes
    assert observer.uid == provenance.device_uid()
    assert observer.manufacturer_name == result.Manufacturer


def test_refused(stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance) -> None:
    def refused(match: str, scores: list[float], score: float = 0.5, threshold: float = 0.5, top: int = 5) -> None:
        with pytest.raises(ValueError, match=match):
            write_report(
                stacks["regular"], scores, tmp_path / "sr.dcm", score=score, threshold=threshold,
                provenance=provenance, top=top,
            )  # fmt: skip

    refused(r"6 frames, got scores of shape \(5,\)", SCORES[:5])
    refused("finite", [*SCORES[:5], np.nan])
    refused("finite", SCORES, score=np.inf)
    refused("finite", SCORES, threshold=np.nan)
    refused("top must not be negative, got -1", SCORES, top=-1)
    assert not list(tmp_path.iterdir())
