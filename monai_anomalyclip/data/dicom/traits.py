# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What tells frames of one place apart: echo, b-value, image type, time and the like."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from monai_anomalyclip.data.dicom.attributes import find_value, text_of
from monai_anomalyclip.data.dicom.series import FrameReference

__all__ = ["MOMENTS", "SPLITTING_TRAITS", "Trait", "is_private_trait", "sort_key", "time_order"]

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
