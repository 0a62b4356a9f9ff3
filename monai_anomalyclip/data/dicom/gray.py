# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What is DICOM's own in bringing gray frames to [0, 1]: evidence in headers, the file's window, MONOCHROME1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.attributes import alike, is_inverted
from monai_anomalyclip.data.dicom.lookup import VOI, find_voi, find_windows, is_hounsfield, rescale
from monai_anomalyclip.data.dicom.series import DicomSeries, FrameReference, values_of
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.transforms.intensity_presets import (
    RADIOGRAPHS,
    IntensityChoice,
    Window,
    choose_preset,
    window_limits,
)

__all__ = ["choose_for_series", "negate_", "scale_gray_"]

# Ultrasound, endoscopy, photography: gray of 8 bits is made for the eye.
_FOR_THE_EYE = ("US", "IVUS", "ES", "EPS", "GM", "XC", "OP", "DMS", "SM")
_NO_RESCALE = 1e-4  # what 8 bits do not show
_SAME_WINDOW = 1e-3  # in units of the values
_IN_COMMON = 0.1  # of the range of both; less is a gross disagreement
_DESCRIPTIONS = ("ProtocolName", "SeriesDescription", "StudyDescription")


def choose_for_series(series: DicomSeries, requested: str) -> IntensityChoice:
    """Apply the rules of :func:`~monai_anomalyclip.transforms.intensity_presets.choose_preset` to a gray series.

    Gray of 8 bits that is not rescaled counts as a picture in cines, ultrasound, endoscopy and photography.

    Raises:
        UnreadableInputError: ``"dicom"`` is requested and a frame has no usable window, or a damaged VOI LUT.
    """
    files = series.instances
    try:
        return choose_preset(
            series.modality,
            " ".join(values_of(files, "BodyPartExamined")),
            [text for keyword in _DESCRIPTIONS for text in values_of(files, keyword)],
            requested,
            has_voi=_has_voi(series, requested),
            picture=requested == "auto" and _is_picture(series),
            hounsfield=series.modality == "CT" and all(map(is_hounsfield, series.frames)),
            kernels=values_of(files, "ConvolutionKernel"),
            own_windows=_own_windows(series.frames) if series.modality == "CT" and requested == "auto" else (),
        )
    except ValueError as error:
        if requested != "dicom":
            raise
        raise UnreadableInputError(str(error)) from None


def _has_voi(series: DicomSeries, requested: str) -> bool:
    """Whether all frames have a usable window or table, where that matters."""
    if requested == "dicom" or (requested == "auto" and series.modality in RADIOGRAPHS):
        return None not in _vois(series.frames)
    if requested != "auto" or series.modality != "CT":
        return False
    try:
        limits = [None if voi is None else voi.limits for voi in _vois(series.frames)]
    except UnreadableInputError:  # nobody asked for it
        return False
    known = [pair for pair in limits if pair is not None]
    # A window that changes from slice to slice would make the slices of one CT incomparable.
    return len(known) == len(limits) and alike(known, _SAME_WINDOW).max() == 0


def _own_windows(frames: Sequence[FrameReference]) -> list[Window]:
    """The different windows of a CT."""
    per_frame = [find_windows(frame) for frame in frames]
    return [Window(*pair) for pair in dict.fromkeys((voi.width, voi.level) for vois in per_frame for voi in vois)]


def scale_gray_(
    pixels: npt.NDArray[np.float32],
    frames: Sequence[FrameReference],
    choice: IntensityChoice,
    sample: npt.NDArray[np.float32] | None = None,
) -> IntensityChoice:
    """Scale real values in place to [0, 1], NaN to 0.

    The window or the percentiles come first, then the inversion of frames whose small values are bright. The foreground
    of such a frame is what lies below its largest value, so that it gives what its MONOCHROME2 twin gives.

    Args:
        pixels: (frames, rows, columns, 1) real values, NaN where padded; contiguous.
        frames: what they are.
        choice: what to do.
        sample: real values to take the percentiles from, inverted frames negated; None for `pixels` themselves.

    Returns:
        The choice with its limits.
    """
    import torch  # here, because headers alone do not need it

    from monai_anomalyclip.transforms.intensity import scale_by_percentiles_

    inverted = [is_inverted(frame.instance.header) for frame in frames]
    alike = len(set(inverted)) == 1
    if choice.preset == "percentile":
        negate_(pixels, frames)
        if np.isnan(pixels if sample is None else sample).all():  # nothing but padding
            pixels.fill(0)
            return choice.with_limits(0.0, 0.0, "The image is constant; it is scaled to zeros.")
        values = torch.from_numpy(pixels)
        choice = scale_by_percentiles_(values, choice, sample=None if sample is None else torch.from_numpy(sample))
        assert choice.low is not None
        assert choice.high is not None
        limits = (-choice.low, -choice.high) if inverted[0] else (choice.low, choice.high)
        doubt = _doubt_by_own_window(limits, frames) if alike else ()
        return choice.with_limits(*(limits if alike else (None, None)), *doubt)
    warnings: tuple[str, ...] = ()
    window = _scale_by_window_(pixels, frames, choice)
    if np.nanmin(pixels, initial=1) == np.nanmax(pixels, initial=0):
        warnings = ("All values lie on one side of the window, or the image is constant.",)
    for plane, invert in zip(pixels, inverted, strict=True):
        if invert:
            np.subtract(1, plane, out=plane)
    torch.from_numpy(pixels).nan_to_num_(nan=0.0)
    low, high = (window[::-1] if inverted[0] else window) if window and alike else (None, None)
    return choice.with_limits(low, high, *warnings)


def _doubt_by_own_window(limits: tuple[float, float], frames: Sequence[FrameReference]) -> tuple[str, ...]:
    """A warning where the limits taken from the values have hardly anything in common with the file's own window."""
    voi = find_voi(frames[len(frames) // 2])
    if voi is None or voi.limits is None:
        return ()
    (low, high), (own_low, own_high) = sorted(limits), voi.limits
    common = min(high, own_high) - max(low, own_low)
    if common >= _IN_COMMON * (max(high, own_high) - min(low, own_low)):
        return ()
    return (
        f"The values from {low:g} to {high:g} are shown, by percentiles; the file's own window runs from {own_low:g} "
        f"to {own_high:g}: if the image looks wrong, give the preset dicom.",
    )


def negate_(pixels: npt.NDArray[np.float32], frames: Sequence[FrameReference]) -> npt.NDArray[np.float32]:
    """Negate, in place, the frames whose small values are bright."""
    for plane, frame in zip(pixels, frames, strict=True):
        if is_inverted(frame.instance.header):
            np.negative(plane, out=plane)
    return pixels


def _scale_by_window_(
    pixels: npt.NDArray[np.float32], frames: Sequence[FrameReference], choice: IntensityChoice
) -> tuple[float, float] | None:
    import torch

    from monai_anomalyclip.transforms.intensity import scale_

    if choice.preset == "dicom":
        vois = [voi for voi in _vois(frames) if voi is not None]
        for plane, voi in zip(pixels, vois, strict=True):
            voi.apply_(plane)
        known = [voi.limits for voi in vois if voi.limits is not None]
        return known[0] if len(known) == len(vois) and alike(known, _SAME_WINDOW).max() == 0 else None
    if choice.width is not None and choice.level is not None:
        limits = window_limits(choice.width, choice.level)
    else:  # a picture
        limits = (0.0, 255.0)
    scale_(torch.from_numpy(pixels), *limits)
    return limits


def _vois(frames: Sequence[FrameReference]) -> list[VOI | None]:
    """The VOI of each frame, looked up once per file where it is the same for all its frames."""
    known: dict[tuple[int, int], VOI | None] = {}
    vois = []
    for frame in frames:
        own = "PerFrameFunctionalGroupsSequence" in frame.instance.header
        key = (id(frame.instance), frame.index if own else 0)
        if key not in known:
            known[key] = find_voi(frame)
        vois.append(known[key])
    return vois


def _is_picture(series: DicomSeries) -> bool:
    plain = all(
        frame.instance.header.get("BitsStored") == 8
        and np.allclose(rescale(frame), (1, 0), atol=_NO_RESCALE)
        and not frame.instance.header.get("ModalityLUTSequence")
        for frame in series.frames
    )
    return plain and (series.kind == "cine" or series.modality in _FOR_THE_EYE)
