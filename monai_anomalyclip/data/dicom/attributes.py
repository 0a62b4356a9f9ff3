# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Values of one frame, from its functional groups or from its file's header, checked to be what they should be."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from monai_anomalyclip.data.dicom.series import FrameReference, text_of

__all__ = ["alike", "find_value", "is_inverted", "patient_digest", "plane", "text_of", "vector"]

_ORTHONORMAL = 1e-2
_FARTHEST_MM = 1e6


def patient_digest(frame: FrameReference) -> str:
    """SHA-256 of the Patient ID, which tells patients apart and names none; "" where the header does not say."""
    try:
        patient = str(find_value(frame, None, "PatientID") or "").strip()
    except Exception:  # a damaged header: the image then stands for itself
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
