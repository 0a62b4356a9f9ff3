# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Decode the lossy JPEG of 12 bits that pydicom has no free plug-in for, with GDCM."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID, JPEGExtended12Bit

from monai_anomalyclip.data.dicom.codestream import Codestream
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["EXTENDED_JPEG", "decode_extended_jpeg"]

EXTENDED_JPEG = (JPEGExtended12Bit, UID("1.2.840.10008.1.2.4.53"), UID("1.2.840.10008.1.2.4.55"))
"""Transfer syntaxes of JPEG processes 2 and 4, 6 and 8, 10 and 12; the last two are retired."""


def decode_extended_jpeg(data: bytes, code: Codestream, syntax: UID) -> npt.NDArray[Any]:
    """Decode one gray frame.

    pydicom 3.0 refuses 12 bits with GDCM; GDCM 3.2 decodes them as SimpleITK does. Its library for 8 bits tries first
    and prints "Unsupported JPEG data precision 12" to the standard error stream, which is of no account.

    Args:
        data: the codestream.
        code: its size, checked against the header.
        syntax: one of :data:`EXTENDED_JPEG`.

    Returns:
        (rows, columns), uint8 or uint16.

    Raises:
        UnreadableInputError: GDCM is not installed, or cannot decode the data.
    """
    try:
        import gdcm
    except ImportError as error:
        raise UnreadableInputError(
            f"cannot decode transfer syntax {syntax.name} ({syntax}): install python-gdcm."
        ) from error
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((code.columns, code.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str.__str__(syntax))))
    allocated = 8 if code.bits <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, code.bits, code.bits - 1, 0))
    buffer = image.GetBuffer()
    if buffer is None:
        raise UnreadableInputError(f"{syntax.name} data are damaged.")
    # GDCM's wrapper returns the bytes as text.
    values = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), dtype=f"<u{allocated // 8}")
    return values.reshape(code.rows, code.columns).astype(values.dtype.newbyteorder("="))
