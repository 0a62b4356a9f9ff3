# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Decode the stored values of DICOM frames one at a time, after a look at what their compressed data would become."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
    UncompressedTransferSyntaxes,
)

from monai_anomalyclip.data.dicom.codestream import (
    EXTENDED_JPEG,
    Codestream,
    check_rle,
    decode_extended_jpeg,
    parse_jpeg,
    parse_jpeg2000,
)
from monai_anomalyclip.data.dicom.pixel_stream import PixelFormat, PixelStream, describe_syntax, readable
from monai_anomalyclip.data.dicom.pydicom_api import get_decoder
from monai_anomalyclip.data.dicom.series import FrameReference, Instance, file_mark
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["DecodedFrame", "decode_frames"]

# Which plug-in of pydicom is asked first. All that can decode a file gave the same values in our tests; GDCM comes
# last because its parsers have open memory faults, and because Pillow knows what Adobe's marker means.
_PLUGINS = ("pillow", "pyjpegls", "pydicom", "pylibjpeg", "gdcm")
_PART_2 = {UID("1.2.840.10008.1.2.4.92"), UID("1.2.840.10008.1.2.4.93")}
_NATIVE = tuple(UncompressedTransferSyntaxes)
_PACKAGES = {
    **dict.fromkeys(JPEGTransferSyntaxes, "python-gdcm"),
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
    # Without the multi-component ones of part 2, which nothing decodes.
    **dict.fromkeys(set(JPEG2000TransferSyntaxes) - _PART_2, "pylibjpeg and pylibjpeg-openjpeg"),
}


class DecodedFrame(NamedTuple):
    """One frame as it is stored.

    Args:
        values: (rows, columns), or (rows, columns, 3) for colour, in native byte order, signs extended and unused bits
            removed.
        photometric: Photometric Interpretation of `values`, which may differ from the header's (JPEG 2000 colour).
    """

    values: npt.NDArray[Any]
    photometric: str


def decode_frames(frames: Iterable[FrameReference]) -> Iterator[DecodedFrame]:
    """Decode frames in the order given, one at a time; a file stays open while its frames follow each other.

    Raises:
        UnreadableInputError: a file is damaged or truncated, a frame too large or other than its header says, or its
            transfer syntax cannot be decoded here. The message says which frame, counted from 1, and holds nothing of
            the file.
    """
    instance: Instance | None = None
    with ExitStack() as stack:
        for number, frame in enumerate(frames, start=1):
            with readable(f"frame {number}"):
                if frame.instance is not instance:
                    stack.close()
                    instance = frame.instance
                    form, syntax = PixelFormat.from_header(instance.header), UID(instance.transfer_syntax)
                    if syntax not in _PACKAGES and syntax not in (*_NATIVE, *EXTENDED_JPEG, RLELossless):
                        raise UnreadableInputError(_cannot_decode(syntax))
                    stream = stack.enter_context(PixelStream(instance, form))
                if not 0 <= frame.index < form.n_frames:
                    raise UnreadableInputError(f"its file has only {form.n_frames} frames.")
                decoded = (_decode if stream.encapsulated else _native)(stream, frame.index, form, syntax)
                if instance.seen not in (None, file_mark(instance.path.stat())):
                    raise UnreadableInputError(
                        "its file was changed, or replaced, after its header was read: run again."
                    )
            yield decoded


def _native(stream: PixelStream, index: int, form: PixelFormat, syntax: UID) -> DecodedFrame:
    pixels = stream.native(index)
    if form.bits_allocated == 1:
        return DecodedFrame(_unpack(pixels, index, form), form.photometric)
    # Values in the upper bits: sign and mask by the high bit, then move them down.
    shift = form.high_bit + 1 - form.bits_stored
    options = {**_options(stream, form), "bits_stored": form.high_bit + 1, "number_of_frames": form.n_frames}
    values, properties = get_decoder(syntax).as_array(pixels, index=index, raw=True, **options)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return DecodedFrame(values >> shift if shift else values, str(properties["photometric_interpretation"]))


def _unpack(pixels: BinaryIO, index: int, form: PixelFormat) -> npt.NDArray[np.uint8]:
    """A frame of single bits, which need not begin at a byte; pydicom 3.0.2 reads a byte too few then."""
    count = math.prod(form.shape)
    skipped, offset = divmod(index * count, 8)
    pixels.seek(skipped, io.SEEK_CUR)
    data = np.frombuffer(pixels.read(-(-(offset + count) // 8)), np.uint8)
    return np.unpackbits(data, bitorder="little")[offset : offset + count].reshape(form.shape)


def _decode(stream: PixelStream, index: int, form: PixelFormat, syntax: UID) -> DecodedFrame:
    data = stream.compressed(index)
    code = _codestream(data, form, syntax)
    if code and syntax in EXTENDED_JPEG and code.samples == 1:
        size, values = code, decode_extended_jpeg(data, code, syntax)

        def with_more(longer: bytes) -> npt.NDArray[Any]:
            try:
                return decode_extended_jpeg(longer, size, syntax)
            except UnreadableInputError:  # of odd parameters it takes no more: nothing is known
                return values

        from monai_anomalyclip.data.checksums import check_jpeg  # other kinds need none of it

        check_jpeg(data, values, with_more)
        return DecodedFrame(values, form.photometric)
    if syntax not in _PACKAGES and syntax != RLELossless:
        raise UnreadableInputError(_cannot_decode(syntax))
    decoder = get_decoder(syntax)
    plugins = [plugin for plugin in _PLUGINS if plugin in decoder.available_plugins]
    if not plugins:
        raise UnreadableInputError(_cannot_decode(syntax))

    def decoded(codestream: bytes, plugin: str) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        single = encapsulate([codestream], has_bot=False)
        values, properties = decoder.as_array(
            single, index=0, raw=True, decoding_plugin=plugin, **_options(stream, form)
        )
        return values, dict(properties)

    for plugin in plugins:
        try:
            values, properties = decoded(data, plugin)
        except Exception:
            if plugin == plugins[-1]:
                raise UnreadableInputError(f"its {syntax.name} data are damaged or of a rare kind.") from None
        else:
            break
    if syntax in JPEGTransferSyntaxes:
        from monai_anomalyclip.data.checksums import check_jpeg, check_lossless_jpeg

        if plugin == "pillow":  # GDCM would print on the error stream
            check_jpeg(data, values, lambda longer: decoded(longer, plugin)[0])
        else:
            check_lossless_jpeg(data, values)
    photometric = str(properties["photometric_interpretation"])
    if code and code.samples == 3 and code.adobe_transform == 1:
        # Pillow undoes the transform that Adobe's marker names, the others leave it; pydicom looks at neither.
        photometric = "RGB" if plugin == "pillow" else "YBR_FULL"
    return DecodedFrame(values, photometric)


def _codestream(data: bytes, form: PixelFormat, syntax: UID) -> Codestream | None:
    """What the data will decode to, after it was compared with the header."""
    try:
        if syntax == RLELossless:
            check_rle(data, form.samples * form.bits_allocated // 8, form.rows * form.columns)
            return None
        code = (parse_jpeg2000 if syntax in JPEG2000TransferSyntaxes else parse_jpeg)(data)
    except ValueError as error:
        raise UnreadableInputError(f"{error}.") from error
    if code[:3] != (form.rows, form.columns, form.samples) or code.bits > form.bits_allocated:
        raise UnreadableInputError(
            f"its compressed data hold {code.rows} x {code.columns} x {code.samples} samples of {code.bits} bits, "
            f"but the header says {form.rows} x {form.columns} x {form.samples} of {form.bits_allocated}."
        )
    return code


def _options(stream: PixelStream, form: PixelFormat) -> dict[str, Any]:
    """What pydicom's decoders need to know of one frame."""
    return {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": form.samples,
        "bits_allocated": form.bits_allocated,
        "bits_stored": form.bits_stored,
        "pixel_representation": form.signed,
        "photometric_interpretation": form.photometric,
        # Codecs interleave the colours, whatever the header says; RLE sets this itself.
        "planar_configuration": 0 if stream.encapsulated else form.planar,
        "number_of_frames": 1,
        "pixel_keyword": stream.keyword,
        "pixel_vr": stream.vr,
    }


def _cannot_decode(syntax: UID) -> str:
    package = _PACKAGES.get(syntax)
    way_out = f"install {package}" if package else "convert the file to an uncompressed one first"
    return f"cannot decode transfer syntax {describe_syntax(syntax)}: {way_out}."
