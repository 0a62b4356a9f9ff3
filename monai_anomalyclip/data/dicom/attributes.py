# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Values of one frame, from its functional groups or from its file's header, checked to be what they should be.

:data:`SPLITTING_TRAITS` are those that tell frames of one place apart: echo, b-value, image type, time and the like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from monai_anomalyclip.data.dicom.series import FrameReference, text_of

__all__ = [
    "MOMENTS",
    "SPLITTING_TRAITS",
    "Trait",
    "alike",
    "find_value",
    "is_inverted",
    "is_private_trait",
    "patient_digest",
    "plane",
    "sort_key",
    "text_of",
    "time_order",
    "vector",
]

_ORTHONORMAL = 1e-2
_FARTHEST_MM = 1e6


def patient_digest(frame: FrameReference) -> str:
    """SHA-256 of the Patient ID, which tells patients apart and names none; "" where the header does not say."""
    try:
        patient = str(find_value(frame, None, "PatientID") or "").strip()
    except ValueError:  # the image then stands for itself
        return ""
    return hashlib.sha256(f"patient {patient}".encode("utf-8", "surrogateescape")).hexdigest() if patient else ""


def find_value(frame: FrameReference, sequence: str | None, keyword: str) -> Any:
    """Value of an attribute of a frame, or None where it is missing or empty.

    Looked for in the frame's own functional groups, then in the shared ones (PS3.3 C.7.6.16), then in the header.

    Args:
        frame: the frame.
        sequence: keyword of the functional group; None for attributes that have none.
        keyword: keyword of the attribute.

    Raises:
        ValueError: the value is malformed.
    """
    header = frame.instance.header
    try:
        if sequence is not None:
            for groups, index in (
                (header.get("PerFrameFunctionalGroupsSequence"), frame.index),
                (header.get("SharedFunctionalGroupsSequence"), 0),
            ):
                if groups and index < len(groups):
                    value = _given(_first_item(groups[index], sequence), keyword)
                    if value is not None:
                        return value
        return _given(header, keyword)
    except Exception as error:  # pydicom decodes on access, and malformed values raise nearly anything
        raise ValueError(f"{keyword} is malformed.") from error


def vector(value: Any, length: int) -> npt.NDArray[np.float64] | None:
    """(length,) finite numbers of an attribute's value, or None if there is no value.

    Raises:
        ValueError: other than so many finite numbers.
    """
    if value is None:
        return None
    try:
        numbers = np.array(
            [float(part) for part in (value if np.iterable(value) and not isinstance(value, str) else [value])]
        )
    except (TypeError, ValueError) as error:
        raise ValueError("The value is no number.") from error
    if numbers.shape != (length,) or not np.isfinite(numbers).all():
        raise ValueError(f"The value must be {length} finite numbers.")
    return numbers


def alike(numbers: npt.ArrayLike, tolerance: float) -> npt.NDArray[np.int64]:
    """Give measured numbers that differ by no more than a tolerance the same label.

    Rounding would not do: it tears apart what lies on both sides of a grid's border, however close. Rows are looked at
    in the order of their values, and each joins the first group whose first member is near; the labels therefore do not
    depend on the order in which they are given.

    Args:
        numbers: (n,) or (n, k).
        tolerance: the greatest difference of any of the k numbers to those of the group's first member.

    Returns:
        (n,) labels from 0, which number the groups by their first members.

    Example:
        >>> alike([0.5, 0.7000001, 0.7], 1e-3).tolist()
        [0, 1, 1]
    """
    rows = np.asarray(numbers, dtype=np.float64)
    rows = rows.reshape(len(rows), -1)
    distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
    firsts = np.empty_like(distinct)
    labels = np.empty(len(distinct), dtype=np.int64)
    count = 0
    for index, row in enumerate(distinct):
        near = np.flatnonzero(np.abs(firsts[:count] - row).max(axis=1, initial=0) <= tolerance)
        labels[index] = near[0] if len(near) else count
        if not len(near):
            firsts[count] = row
            count += 1
    return labels[inverse.ravel()]


def is_inverted(header: Dataset) -> bool:
    """Whether small values are bright: MONOCHROME1, or Presentation LUT Shape INVERSE, which say the same thing."""
    photometric, shape = header.get("PhotometricInterpretation"), header.get("PresentationLUTShape")
    return str(photometric).strip().upper() == "MONOCHROME1" or str(shape).strip().upper() == "INVERSE"


def plane(frame: FrameReference) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Orientation (6,) and position (3,) in mm of a frame, or None if it has none.

    The direction cosines are made exactly orthonormal. The position of a multi-frame file without functional groups
    is that of no frame in particular and not used.

    Raises:
        ValueError: one of the two is missing or malformed, the direction cosines are not orthonormal within 0.01, or
            the position is more than a kilometre away.
    """
    if frame.instance.n_frames > 1 and "PerFrameFunctionalGroupsSequence" not in frame.instance.header:
        return None
    position = vector(find_value(frame, "PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = vector(find_value(frame, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    if position is None and orientation is None:
        return None
    if position is None or orientation is None:
        raise ValueError("Position and orientation must be given together.")
    axes = orientation.reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > _ORTHONORMAL:
        raise ValueError("The direction cosines are not orthonormal.")
    if np.abs(position).max() > _FARTHEST_MM:
        raise ValueError("The position is out of reach.")
    across = axes[0] / np.linalg.norm(axes[0])
    down = axes[1] - (axes[1] @ across) * across
    return np.concatenate([across, down / np.linalg.norm(down)]), position


def _given(dataset: Dataset | None, keyword: str) -> Any:
    value = None if dataset is None else dataset.get(keyword)
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def _first_item(dataset: Dataset, sequence: str) -> Dataset | None:
    items = dataset.get(sequence)
    return items[0] if items else None


Reader = Callable[[FrameReference], Hashable]


class Trait(NamedTuple):
    """An attribute of frames.

    Args:
        name: what it is called in the name of a part.
        read: gives a number, text, a tuple of these, or None where it is missing.
        in_time: whether it tells moments apart.
        noise: numbers that differ by no more than this fraction of the largest one are the same.
        noise_mm: likewise, as a difference.
    """

    name: str
    read: Reader
    in_time: bool = False
    noise: float = 0.0
    noise_mm: float = 0.0

    def tolerance(self, numbers: npt.NDArray[np.float64]) -> float:
        """The greatest difference of numbers that are the same."""
        return self.noise_mm or self.noise * float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0))


def sort_key(value: Hashable) -> tuple[bool, tuple[float, ...], str]:
    """Puts numbers and tuples of numbers in their order, then text, then None."""
    parts = value if isinstance(value, tuple) else (value,)
    numbers = tuple(float(part) if isinstance(part, int | float) else np.inf for part in parts)
    return value is None, numbers, str(value)


def time_order(frames: Sequence[FrameReference]) -> list[int]:
    """Indices that put frames of one place in the order of time; the instance number settles what is left."""

    def key(index: int) -> list[Any]:
        frame = frames[index]
        moments = [trait.read(frame) for trait in (_TIME_POINT, *MOMENTS, _ACQUISITION, _INSTANCE)]
        return [*map(sort_key, moments), text_of(frame.instance.header, "SOPInstanceUID"), frame.index]

    return sorted(range(len(frames)), key=key)


def _plain(value: Any) -> Hashable:
    """A number as a float, several values as a tuple, anything else as text; None stays None."""
    if value is None:
        return None
    if not isinstance(value, str | bytes) and np.iterable(value):
        return tuple(_plain(part) for part in value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value).strip()


def _first_of(*places: tuple[str | None, str]) -> Reader:
    """Reads the first attribute, given as (functional group, keyword), that a frame has."""

    def read(frame: FrameReference) -> Hashable:
        for sequence, keyword in places:
            try:
                value = find_value(frame, sequence, keyword)
            except ValueError:
                continue
            if value is not None:
                return _plain(value)
        return None

    return read


class _Private(NamedTuple):
    """A private element, and how the name of the manufacturer begins that writes it."""

    manufacturer: str
    group: int
    creator: str
    element: int

    def read(self, header: Dataset) -> list[Any] | None:
        """Its values, or None. Where an anonymiser stripped the creator, the block is taken to be the first one."""
        try:
            if (self.group, 0x0010) in header:
                value = header.private_block(self.group, self.creator)[self.element].value
            elif text_of(header, "Manufacturer").upper().startswith(self.manufacturer):
                value = header[self.group, 0x1000 + self.element].value
            else:
                return None
            if isinstance(value, bytes):  # of unknown VR
                value = value.decode("ascii").strip("\0 ").split("\\")
            return list(value) if np.iterable(value) and not isinstance(value, str) else [value]
        except Exception:  # absent, or malformed in any way
            return None


_B_VALUES = (
    _Private("SIEMENS", 0x0019, "SIEMENS MR HEADER", 0x0C),
    _Private("GE", 0x0043, "GEMS_PARM_01", 0x39),
    _Private("PHILIPS", 0x2001, "Philips Imaging DD 001", 0x03),
)
_SIEMENS_GRADIENT = _Private("SIEMENS", 0x0019, "SIEMENS MR HEADER", 0x0E)
_GE_GRADIENT = [_Private("GE", 0x0019, "GEMS_ACQU_01", element) for element in (0xBB, 0xBC, 0xBD)]


_READ = {(private.group, private.element) for private in (*_B_VALUES, _SIEMENS_GRADIENT, *_GE_GRADIENT)}
_READ_GROUPS = {group for group, _ in _READ}


def is_private_trait(tag: int) -> bool:
    """Whether a private tag is of an element that some trait reads, or names the creator of one (PS3.5 7.8.1)."""
    group, element = tag >> 16, tag & 0xFFFF
    return group in _READ_GROUPS and (element < 0x100 or (group, element & 0xFF) in _READ)


def _b_value(frame: FrameReference) -> Hashable:
    standard = _first_of(("MRDiffusionSequence", "DiffusionBValue"))(frame)
    if standard is not None:
        return standard
    for element in _B_VALUES:
        value = _plain(element.read(frame.instance.header))
        if isinstance(value, tuple) and value and isinstance(value[0], float):
            return value[0] % 1e5  # GE adds 1e9
    return None


def _gradient(frame: FrameReference) -> Hashable:
    try:
        item = find_value(frame, "MRDiffusionSequence", "DiffusionGradientDirectionSequence")
    except ValueError:
        item = None
    if item:
        return _plain(item[0].get("DiffusionGradientOrientation"))
    header = frame.instance.header
    standard = _first_of((None, "DiffusionGradientOrientation"))(frame)
    private = _SIEMENS_GRADIENT.read(header) or [element.read(header) for element in _GE_GRADIENT]
    return standard or (_plain(private) if any(private) else None)


def _image_type(frame: FrameReference) -> Hashable:
    frame_type = [
        _first_of((f"{modality}ImageFrameTypeSequence", keyword))(frame)
        for modality in ("MR", "CT", "PET")
        for keyword in ("FrameType", "ComplexImageComponent")
    ]
    return (_first_of((None, "ImageType"))(frame), *frame_type)


# What scanners and converters change in the last digits of a setting; moments count from a start long before.
_NOISE, _NOISE_OF_MOMENTS = 1e-4, 1e-7

_TIME_POINT = Trait(
    "time point",
    _first_of(("FrameContentSequence", "TemporalPositionIndex"), (None, "TemporalPositionIdentifier")),
    in_time=True,
)
_ACQUISITION = Trait(
    "acquisition number",
    _first_of(("FrameContentSequence", "FrameAcquisitionNumber"), (None, "AcquisitionNumber")),
    in_time=True,
)
_INSTANCE = Trait("instance number", _first_of((None, "InstanceNumber")))
MOMENTS = (
    Trait(
        "trigger time",
        _first_of(
            ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
            (None, "TriggerTime"),
            (None, "NominalPercentageOfCardiacPhase"),
        ),
        in_time=True,
        noise=_NOISE_OF_MOMENTS,
    ),
    Trait("frame reference time", _first_of((None, "FrameReferenceTime")), in_time=True, noise=_NOISE_OF_MOMENTS),
    Trait(
        "acquisition time",
        _first_of(
            ("FrameContentSequence", "FrameAcquisitionDateTime"),
            (None, "AcquisitionDateTime"),
            (None, "AcquisitionTime"),
        ),
        in_time=True,
    ),
    Trait("content time", _first_of((None, "ContentTime")), in_time=True),
)
SPLITTING_TRAITS = (
    Trait("echo time", _first_of(("MREchoSequence", "EffectiveEchoTime"), (None, "EchoTime")), noise=_NOISE),
    Trait("echo", _first_of((None, "EchoNumbers"))),
    Trait("b-value", _b_value, noise=_NOISE),
    Trait("gradient direction", _gradient, noise=_NOISE),
    Trait("image type", _image_type),
    Trait("inversion time", _first_of(("MRModifierSequence", "InversionTimes"), (None, "InversionTime")), noise=_NOISE),
    Trait(
        "flip angle",
        _first_of(("MRTimingAndRelatedParametersSequence", "FlipAngle"), (None, "FlipAngle")),
        noise=_NOISE,
    ),
    Trait(
        "reconstruction kernel",
        _first_of(("CTReconstructionSequence", "ConvolutionKernel"), (None, "ConvolutionKernel")),
    ),
    Trait("tube voltage", _first_of(("CTXRayDetailsSequence", "KVP"), (None, "KVP")), noise=_NOISE),
    Trait("slice thickness", _first_of(("PixelMeasuresSequence", "SliceThickness")), noise=_NOISE),
    Trait("frame of reference", _first_of((None, "FrameOfReferenceUID"))),
    _TIME_POINT,
    *MOMENTS[:2],
    _ACQUISITION,
)
