# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pydicom import Dataset

from monai_anomalyclip.data.dicom import FrameReference, Instance
from monai_anomalyclip.data.dicom.attributes import (
    SPLITTING_TRAITS,
    alike,
    find_value,
    patient_digest,
    plane,
    text_of,
    vector,
)


def frame(index: int = 0, **attributes: object) -> FrameReference:
    return FrameReference(Instance(Path("x"), dataset(**attributes), "1.2.840.10008.1.2.1"), index)


def dataset(**attributes: object) -> Dataset:
    result = Dataset()
    for keyword, value in attributes.items():
        setattr(result, keyword, value)
    return result


def test_own_groups_come_before_shared_ones_before_the_header() -> None:
    own = [dataset(MREchoSequence=[dataset(EffectiveEchoTime=5.0)]), dataset()]
    shared = [dataset(MREchoSequence=[dataset(EffectiveEchoTime=7.0)])]
    groups = {"PerFrameFunctionalGroupsSequence": own, "SharedFunctionalGroupsSequence": shared, "NumberOfFrames": 3}
    values = [find_value(frame(index, **groups), "MREchoSequence", "EffectiveEchoTime") for index in range(3)]
    assert values == [5.0, 7.0, 7.0]
    assert find_value(frame(EchoTime="4"), "MREchoSequence", "EchoTime") == 4
    assert find_value(frame(EchoTime=None), None, "EchoTime") is None
    assert find_value(frame(), "MREchoSequence", "EchoTime") is None


def trait(name: str, frame: FrameReference) -> object:
    (found,) = [trait for trait in SPLITTING_TRAITS if trait.name == name]
    return found.read(frame)


def test_a_malformed_value_is_an_error_of_its_own_and_no_trait(phantoms: ModuleType) -> None:
    echo = dataset()
    phantoms.spoil(echo, "EffectiveEchoTime")
    damaged = frame(SharedFunctionalGroupsSequence=[dataset(MREchoSequence=[echo])], EchoTime="4", PatientID="A")
    with pytest.raises(ValueError, match=r"EffectiveEchoTime is malformed\."):
        find_value(damaged, "MREchoSequence", "EffectiveEchoTime")
    assert trait("echo time", damaged) == 4
    known = patient_digest(damaged)
    assert known == patient_digest(frame(PatientID=" A ")) != patient_digest(frame(PatientID="B"))
    phantoms.spoil(damaged.instance.header, "PatientID")
    assert patient_digest(damaged) == patient_digest(frame()) == ""


def test_direction_of_the_gradient(phantoms: ModuleType) -> None:
    """In the functional group of an enhanced image, else in the header; a malformed group counts as absent."""
    direction = dataset(DiffusionGradientOrientation=[0.0, 0.6, 0.8])
    diffusion = dataset(DiffusionGradientDirectionSequence=[direction])
    own = frame(PerFrameFunctionalGroupsSequence=[dataset(MRDiffusionSequence=[diffusion])])
    assert trait("gradient direction", own) == (0, 0.6, 0.8)
    assert trait("gradient direction", frame(DiffusionGradientOrientation=[1.0, 0.0, 0.0])) == (1, 0, 0)
    assert trait("gradient direction", frame()) is None
    phantoms.spoil(diffusion, "DiffusionGradientDirectionSequence")
    own.instance.header.DiffusionGradientOrientation = [1.0, 0.0, 0.0]
    assert trait("gradient direction", own) == (1, 0, 0)


def test_vectors_are_so_many_finite_numbers() -> None:
    assert vector(None, 2) is None
    np.testing.assert_array_equal(vector(["1.5", 2], 2), [1.5, 2])
    np.testing.assert_array_equal(vector("3", 1), [3])
    for value in ([1, float("nan")], [1], [1, 2, 3], ["a", "b"], object(), [float("inf"), 1]):
        with pytest.raises(ValueError, match="number"):
            vector(value, 2)


def test_text_is_never_an_error() -> None:
    assert text_of(dataset(Modality=" CT "), "Modality") == "CT"
    assert text_of(dataset(), "Modality") == ""
    assert text_of(dataset(PatientName=None), "PatientName") == ""


def test_planes_are_made_orthonormal() -> None:
    rounded = [0.866, 0.5, 0.0, -0.354, 0.612, 0.707]
    found = plane(frame(ImagePositionPatient=[1, 2, 3], ImageOrientationPatient=rounded))
    assert found is not None
    axes = found[0].reshape(2, 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found[0], rounded, atol=2e-3)
    np.testing.assert_array_equal(found[1], [1, 2, 3])
    assert plane(frame()) is None


@pytest.mark.parametrize(
    ("position", "orientation"),
    [
        ([1, 2, 3], None),
        (None, [1, 0, 0, 0, 1, 0]),
        ([1, 2], [1, 0, 0, 0, 1, 0]),
        ([1, 2, 3], [1, 0, 0, 0, 1]),
        ([1, 2, 3], [0, 0, 0, 0, 0, 0]),
        ([1, 2, 3], [1, 0, 0, 1, 0, 0]),
        ([1, 2, 3], [1, 0, 0, 0.1, 0.995, 0]),
        ([1, 2, 3], [2, 0, 0, 0, 2, 0]),
        ([1, 2, "nan"], [1, 0, 0, 0, 1, 0]),
        ([1, 2, 3], ["inf", 0, 0, 0, 1, 0]),
        ([1, 2, 1e7], [1, 0, 0, 0, 1, 0]),
    ],
)
def test_planes_that_are_none_are_refused(position: list[object] | None, orientation: list[object] | None) -> None:
    broken = frame(ImagePositionPatient=position, ImageOrientationPatient=orientation)
    with pytest.raises(ValueError, match=r"\.$"):
        plane(broken)


def test_one_position_for_many_frames_is_that_of_none() -> None:
    place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    assert plane(frame(NumberOfFrames=5, **place)) is None
    assert plane(frame(NumberOfFrames=1, **place)) is not None


def test_alike_numbers_have_one_label_whatever_their_order() -> None:
    numbers = np.array([0.5, 0.7, 0.70005, 0.9, 0.69995])
    assert alike(numbers, 1e-3).tolist() == [0, 1, 1, 2, 1]
    assert alike(numbers[::-1], 1e-3).tolist() == [1, 2, 1, 1, 0]
    assert alike(numbers, 1e-6).tolist() == [0, 2, 3, 4, 1]
    assert alike([(1.0, 0.0), (1.0, 0.5), (1.0, 1e-9)], 1e-6).tolist() == [0, 1, 0]
