# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import monai
import pydicom
import pytest
import torch
from pydicom import Dataset
from pydicom.uid import UID

import monai_anomalyclip
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.writers.dicom import Provenance
from monai_anomalyclip.writers.dicom.provenance import series_description

WriteAll = Callable[..., dict[str, Path]]
KINDS = ("segmentation", "parametric map", "report", "secondary capture")


def own_uids(dataset: Dataset, series: DicomSeries) -> set[str]:
    """All UIDs in an object, but those of the standard (SOP classes) and those of the source."""
    sources = {str(value) for instance in series.instances for value in uids(instance.header)}
    return {uid for uid in uids(dataset) if not uid.startswith("1.2.840.10008.") and uid not in sources}


def uids(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "UI":
            yield str(element.value)
        elif element.VR == "SQ":
            for item in element.value:
                yield from uids(item)


def written(write_all: WriteAll, series: DicomSeries, folder: Path, provenance: Provenance) -> dict[str, set[str]]:
    paths = write_all(series, folder, provenance, overwrite=True)
    return {kind: own_uids(pydicom.dcmread(path), series) for kind, path in paths.items()}


def test_deterministic_uids(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, write_all: WriteAll
) -> None:
    series = stacks["regular"]
    fixed = replace(provenance, deterministic=True)
    first = written(write_all, series, tmp_path, fixed)
    assert set(first) == set(KINDS)
    assert written(write_all, series, tmp_path, fixed) == first
    everything = set().union(*first.values())
    # Series and instance of four objects, a tracking UID, two dimension organizations, six groups and the observer
    # of the report: none stands for two things.
    assert len(everything) == sum(map(len, first.values())) == 8 + 1 + 2 + 7
    assert all(UID(uid).is_valid and uid.startswith("2.25.") for uid in everything)

    # The observer is the software in its configuration, whatever the series.
    observer = {fixed.device_uid()}
    for other_series in (stacks["gaps"], replace(series, split="echo time 20")):
        for kind, found in written(write_all, other_series, tmp_path, fixed).items():
            assert found & first[kind] == (observer if kind == "report" else set())
    other = replace(fixed, parameters={"threshold": 0.6})
    for kind, found in written(write_all, series, tmp_path, other).items():
        assert not found & first[kind]


def test_every_setting_changes_the_configuration(stacks: dict[str, DicomSeries], provenance: Provenance) -> None:
    fixed = replace(provenance, deterministic=True)
    variants = [
        fixed,
        replace(fixed, parameters={"threshold": 0.6}),
        replace(fixed, parameters={"threshold": 0.5, "more": 1}),
        replace(fixed, prompts_sha256="ab" * 32),
        replace(fixed, backbone="ViT-other"),
        replace(fixed, algorithm_name="Other"),
        replace(fixed, algorithm_version="9"),
        replace(fixed, software_versions=("torch 1",)),
    ]
    assert len({variant.uid(stacks["single"], "segmentation series") for variant in variants}) == len(variants)
    told_apart = replace(fixed, context="more slices")
    assert told_apart.uid(stacks["single"], "report series") != fixed.uid(stacks["single"], "report series")
    assert told_apart.configuration_hash == fixed.configuration_hash
    assert (
        replace(fixed, parameters={"a": 1, "b": 2}).device_uid()
        == replace(fixed, parameters={"b": 2, "a": 1}).device_uid()
    )
    assert provenance.configuration_hash == fixed.configuration_hash


def test_uids_are_new_in_every_run(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, write_all: WriteAll
) -> None:
    first = written(write_all, stacks["regular"], tmp_path, provenance)
    second = written(write_all, stacks["regular"], tmp_path, provenance)
    for kind in KINDS:
        common = first[kind] & second[kind]
        assert common == ({provenance.device_uid()} if kind == "report" else set())
        assert all(UID(uid).is_valid for uid in first[kind])


def test_what_objects_say_about_the_algorithm(
    stacks: dict[str, DicomSeries], tmp_path: Path, provenance: Provenance, write_all: WriteAll
) -> None:
    for kind, path in write_all(stacks["regular"], tmp_path, provenance).items():
        result = pydicom.dcmread(path)
        assert result.SeriesDescription == f"Anomaly detection: {kind} (research)"
        assert result.Manufacturer == "monai_anomalyclip authors"
        assert result.ManufacturerModelName == "monai_anomalyclip (research)"
        assert result.DeviceSerialNumber == provenance.configuration_hash[:16]
        versions = [f"monai_anomalyclip {monai_anomalyclip.__version__}", f"torch {torch.__version__}"]
        assert list(result.SoftwareVersions) == [*versions, f"monai {monai.__version__}"]
        ours = [item for item in result.ContributingEquipmentSequence if item.Manufacturer == result.Manufacturer]
        assert len(ours) == 1
        code = ours[0].PurposeOfReferenceCodeSequence[0]
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("109102", "DCM")
        assert "Research use only" in ours[0].ContributionDescription

    item = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    family = item.AlgorithmFamilyCodeSequence[0]
    assert (family.CodeValue, family.CodingSchemeDesignator) == ("123110", "DCM")
    assert (item.AlgorithmName, item.AlgorithmVersion) == ("AnomalyCLIP", monai_anomalyclip.__version__)
    assert item.AlgorithmSource == "monai_anomalyclip authors"
    assert item.AlgorithmParameters == f"backbone=ViT-tiny,prompts_sha256={'0f' * 32},threshold=0.5"


@pytest.mark.parametrize("kind", KINDS)
def test_series_description_fits(kind: str) -> None:
    assert len(series_description(kind)) <= 64
    assert series_description(kind).endswith("(research)")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(3, 1003), (None, 1000), ("", 1000), (-2000, 1000), (2**31 - 5, 1000), ([1, 2], 1000), (2**31 - 1001, 2**31 - 1)],
)
def test_series_number_stays_in_range(
    stacks: dict[str, DicomSeries], provenance: Provenance, number: object, expected: int
) -> None:
    header = Dataset()
    if number is not None:
        header.SeriesNumber = number
    frame = replace(stacks["single"].frames[0], instance=replace(stacks["single"].instances[0], header=header))
    series = replace(stacks["single"], frames=(frame,))
    assert provenance.identity(series, "segmentation")["series_number"] == expected


def test_parameters_become_plain_text(stacks: dict[str, DicomSeries]) -> None:
    provenance = Provenance("0f" * 32, "ViT", {"prompt": "a\\b\nü", "slices": [1, 2]})
    item = provenance.algorithm_identification()[0]
    assert item.AlgorithmParameters.endswith("prompt=a/b ?,slices=[1, 2]")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prompts_sha256": "12"}, "64 lower-case"),
        ({"prompts_sha256": "0F" * 32}, "64 lower-case"),
        ({"backbone": ""}, "1 to 64"),
        ({"backbone": "x" * 65}, "1 to 64"),
        ({"algorithm_name": "Ümlaut"}, "1 to 64"),
        ({"software_versions": ("a\\b",)}, "1 to 64"),
        ({"software_versions": ()}, "At least one"),
        ({"parameters": {"long": "x" * 10240}}, "DICOM allows 10240"),
    ],
)
def test_refused_values(provenance: Provenance, change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(provenance, **change)
