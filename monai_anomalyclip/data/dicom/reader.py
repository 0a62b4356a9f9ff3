# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Load a DICOM series as an image in [0, 1] (gray) or 0..255 (colour), in its own geometry."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.data.dicom.attributes import find_value, patient_digest, vector
from monai_anomalyclip.data.dicom.gray import choose_for_series, negate_, scale_gray_
from monai_anomalyclip.data.dicom.lookup import real_values, to_rgb
from monai_anomalyclip.data.dicom.pixel_stream import readable
from monai_anomalyclip.data.dicom.pixels import DecodedFrame, decode_frames
from monai_anomalyclip.data.dicom.pydicom_api import quiet_pydicom
from monai_anomalyclip.data.dicom.series import DicomSeries, FrameReference, StackGeometry
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.transforms.intensity_presets import IntensityChoice, check_preset, choose_preset

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from monai_anomalyclip.data.dicom.encapsulated_video import EncapsulatedVideo

__all__ = ["MAX_BYTES", "frame_times", "load_series", "stack_affine"]

MAX_BYTES = 4 * 2**30
"""Images that take more memory are refused."""

_CINE_SAMPLES = 16
_UNKNOWN_STEP = 40.0  # ms from frame to frame of a cine that does not tell: for playing it only
_SHORTEST_STEP = 1.0  # ms
_LONGEST_CINE = 1e9  # ms


def load_series(
    series: DicomSeries,
    *,
    preset: str = "auto",
    start: int = 0,
    stop: int | None = None,
    max_bytes: int = MAX_BYTES,
    video: EncapsulatedVideo | None = None,
) -> MetaTensor:
    """Decode a series, scale gray to [0, 1] and convert colour to RGB.

    X runs along the columns of a frame, Y along its rows. Gray is rescaled, windowed by the preset and inverted where
    small values are bright, in this order; padding becomes 0. The limits are the same for all frames, except those of
    the preset ``"dicom"``, which each file or frame states for itself.

    Args:
        series: what to load.
        preset: a name of :data:`~monai_anomalyclip.transforms.intensity_presets.PRESET_NAMES`.
        start: first frame to load, for cines only. All parts of a cine get the same limits.
        stop: frame before which to stop, for cines only; None loads up to the last.
        max_bytes: images that take more are refused before memory is allocated.
        video: decoder of a series that is a video; it stays open, so that the next part goes on from there. Without
            it, every part decodes the video from its start.

    Returns:
        Volumes and cines (1, X, Y, Z) float32 in [0, 1] with Z the frames in stack order, or (3, X, Y, Z) uint8 in
        colour; frames (1, H, W) float32 or (3, H, W) uint8. The affine is the true one of a regular volume; otherwise
        one of the same axes with nominal spacings, which is not fit for writing NIfTI; the identity for frames.

        Meta: ``kind``; ``modality``; ``intensity``, JSON of an IntensityChoice; ``notes``, sentences joined by a space;
        ``native_slices`` = 1, since slices lie along Z and are shown as stored; ``spatial_shape``;
        ``original_affine``. Nothing in it tells the patient or the file.

    Raises:
        UnreadableInputError: a frame cannot be decoded or is of another size, the image is too large, or the preset
            ``"dicom"`` is asked for and a frame has no window.
        ValueError: unknown preset, or a part that does not exist or is not of a cine.
    """
    import torch
    from monai.data.meta_tensor import MetaTensor  # takes seconds, which headers alone do not need

    check_preset(preset)
    stop = len(series.frames) if stop is None else stop
    if not 0 <= start < stop <= len(series.frames) or (series.kind != "cine" and stop - start < len(series.frames)):
        raise ValueError(
            f"Only parts of a cine can be loaded, within 0..{len(series.frames)}, got {start}..{stop} of a "
            f"{series.kind}."
        )
    with quiet_pydicom():
        notes = list(series.notes)
        pixels: npt.NDArray[Any]
        if series.colour:
            pixels, choice = _load_colour(series, start, stop, max_bytes, preset, notes, video)
        else:
            pixels, choice = _load_gray(series, start, stop, max_bytes, preset)
        # From (frames, rows, columns, channels): only the view changes.
        picture = series.kind == "frame"
        image = torch.from_numpy(pixels[0].transpose(2, 0, 1) if picture else pixels.transpose(3, 2, 1, 0))
        affine = np.eye(4) if picture else stack_affine(series.geometry)
        meta = {
            "kind": series.kind,
            "modality": series.modality,
            "patient": patient_digest(series.frames[0]),
            "intensity": choice.to_json(),
            "notes": " ".join(notes),
            "native_slices": 1,
            "spatial_shape": np.asarray(image.shape[1:]),
            "original_affine": affine.copy(),
        }
    return MetaTensor(image, affine=torch.from_numpy(affine), meta=meta)


def _load_colour(
    series: DicomSeries,
    start: int,
    stop: int,
    max_bytes: int,
    preset: str,
    notes: list[str],
    video: EncapsulatedVideo | None,
) -> tuple[npt.NDArray[np.uint8], IntensityChoice]:
    from monai_anomalyclip.data.dicom.encapsulated_video import EncapsulatedVideo, is_video  # gray stacks need none

    pixels = _allocate(series, stop - start, 3, np.uint8, max_bytes)
    instance = series.frames[0].instance
    if is_video(instance):
        pixels = _fill_from_video(pixels, series, start, stop, notes, video or EncapsulatedVideo(instance))
    else:
        for number, picture in enumerate(_frame_by_frame(series, series.frames[start:stop], to_rgb)):
            pixels[number] = picture
    choice = choose_preset(series.modality, requested=preset, picture=True)
    return pixels, choice.with_limits(0.0, 255.0)


def _fill_from_video(
    pixels: npt.NDArray[np.uint8],
    series: DicomSeries,
    start: int,
    stop: int,
    notes: list[str],
    video: EncapsulatedVideo,
) -> npt.NDArray[np.uint8]:
    """Fill an array (frames, rows, columns, 3); what it is returned as is shorter if the video ends before."""
    filled = 0
    for filled, picture in enumerate(video.read(start, stop), start=1):
        pixels[filled - 1] = picture
    if not filled:
        raise UnreadableInputError(
            "Cannot read the video of a DICOM series: it holds fewer frames than its header says."
        )
    if filled < len(pixels):
        notes.append("The video holds fewer frames than its header says.")
    elif stop == len(series.frames):
        with contextlib.suppress(UnreadableInputError):  # what is behind the last frame was not asked for
            if next(video.read(stop, stop + 1), None) is not None:
                notes.append("The video holds more frames than its header says.")
    return pixels[:filled]


def _load_gray(
    series: DicomSeries, start: int, stop: int, max_bytes: int, preset: str
) -> tuple[npt.NDArray[np.float32], IntensityChoice]:
    pixels = _allocate(series, stop - start, 1, np.float32, max_bytes)
    with readable("the header"):
        choice = choose_for_series(series, preset)
    frames = series.frames[start:stop]
    _fill(pixels, series, frames)
    sample = None
    if series.kind == "cine" and choice.preset == "percentile":
        count = len(series.frames)
        spread = np.linspace(0, count - 1, min(_CINE_SAMPLES, count)).round().astype(int)
        chosen = [series.frames[index] for index in spread]
        sample = _allocate(series, len(chosen), 1, np.float32, max_bytes)
        _fill(sample, series, chosen)
        negate_(sample, chosen)
    return pixels, scale_gray_(pixels, frames, choice, sample)


def _fill(pixels: npt.NDArray[np.float32], series: DicomSeries, frames: Sequence[FrameReference]) -> None:
    """Fill an array (frames, rows, columns, 1) with real values."""

    def to_real(decoded: DecodedFrame, frame: FrameReference) -> npt.NDArray[np.float32]:
        if decoded.values.ndim != 2:
            raise UnreadableInputError("it is in colour, but the first one is not.")
        return real_values(decoded.values, frame)

    for plane, values in zip(pixels, _frame_by_frame(series, frames, to_real), strict=True):
        plane[..., 0] = values


def _frame_by_frame(
    series: DicomSeries,
    frames: Sequence[FrameReference],
    convert: Callable[[DecodedFrame, FrameReference], npt.NDArray[Any]],
) -> Iterator[npt.NDArray[Any]]:
    for number, (decoded, frame) in enumerate(zip(decode_frames(frames), frames, strict=True), start=1):
        with readable(f"frame {number}"):
            if decoded.values.shape[:2] != series.size:
                raise UnreadableInputError(f"it has the size {decoded.values.shape[:2]}, the first one {series.size}.")
            converted = convert(decoded, frame)
        yield converted


def _allocate(series: DicomSeries, count: int, channels: int, dtype: type[Any], max_bytes: int) -> npt.NDArray[Any]:
    shape = (count, *series.size, channels)
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if needed > max_bytes:
        raise UnreadableInputError(
            f"A DICOM series of {count} frames of {series.size[0]} x {series.size[1]} pixels takes {needed:,} bytes, "
            f"more than the allowed {max_bytes:,}."
        )
    return np.empty(shape, dtype)


def stack_affine(geometry: StackGeometry) -> npt.NDArray[np.float64]:
    """The true affine, else one of the right axes and the nominal spacings, 1 where they are unknown."""
    true = geometry.affine()
    if true is not None:
        return true
    orientation = np.eye(3)[:2].ravel() if geometry.orientation is None else geometry.orientation
    nominal = np.eye(4)
    between_rows, between_columns = geometry.pixel_spacing or (1.0, 1.0)
    nominal[:3, 0] = orientation[:3] * between_columns
    nominal[:3, 1] = orientation[3:] * between_rows
    nominal[:3, 2] = np.cross(orientation[:3], orientation[3:]) * (geometry.slice_spacing or 1.0)
    if geometry.positions is not None:
        nominal[:3, 3] = geometry.positions[0]
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ nominal)  # LPS to RAS


def frame_times(series: DicomSeries) -> tuple[list[float], float]:
    """When each frame of a cine is shown, in seconds, and nominal frames per second.

    From Frame Time Vector, Frame Time (both in ms) or Cine Rate (DICOM PS3.3 C.7.6.5); else 25 per second. Malformed
    values, and those that no film can be played by, count as absent.
    """
    count = len(series.frames)
    steps = _steps(series, "FrameTimeVector", count)
    if steps is None and count < (stated := series.frames[0].instance.n_frames):  # a video of fewer frames
        steps = _steps(series, "FrameTimeVector", stated)
        steps = None if steps is None else steps[:count]
    if steps is None or count == 1 or not _playable(steps[1:], count):
        single = [_steps(series, "FrameTime", 1)]
        rates = [_steps(series, keyword, 1) for keyword in ("CineRate", "RecommendedDisplayFrameRate")]
        single += [1000 / rate for rate in rates if rate is not None and rate[0] > 0]
        known = [step for step in single if step is not None and _playable(step, count)]
        steps = np.repeat(known[0] if known else [_UNKNOWN_STEP], max(count, 2))[:count]
    times = np.cumsum([0.0, *steps[1:]]) / 1000  # the vector's first number belongs to no pair of frames
    return times.tolist(), 1000 / float(steps[min(count - 1, 1) :].mean())


def _steps(series: DicomSeries, keyword: str, length: int) -> npt.NDArray[np.float64] | None:
    try:
        with quiet_pydicom():
            return vector(find_value(series.frames[0], None, keyword), length)
    except ValueError:
        return None


def _playable(steps: npt.NDArray[np.float64], count: int) -> bool:
    return bool((steps >= _SHORTEST_STEP).all() and steps.max() * count <= _LONGEST_CINE)
