# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Unsigned integers in the order of the floating-point numbers they stand for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["from_ordered_bits", "to_ordered_bits"]

_SIGN = np.uint32(1 << 31)
_ALL = np.uint32(2**32 - 1)


def to_ordered_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Map float32 to uint32 so that ``a < b`` holds for the numbers exactly when it holds for the integers.

    The integers are the IEEE 754 bits with the sign bit flipped (positive numbers) or with all bits flipped (negative
    ones); both zeros become one. The upper bits are therefore a bin number of constant relative width.
    """
    # Adding zero copies, and turns -0 into +0.
    bits: npt.NDArray[np.uint32] = (values + np.float32(0)).view(np.uint32)
    negative = bits >> np.uint32(31)
    bits ^= negative * (_ALL ^ _SIGN) + _SIGN
    return bits


def from_ordered_bits(ordered: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Undo :func:`to_ordered_bits`."""
    negative = np.uint32(1) - (ordered >> np.uint32(31))
    return (ordered ^ (negative * (_ALL ^ _SIGN) + _SIGN)).view(np.float32)
