# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Bring a loaded frame or volume to [0, 1], the range every later step expects."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, Transform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils.type_conversion import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from monai_anomalyclip.transforms.intensity_presets import (
    LOWER,
    PRESETS,
    UPPER,
    IntensityChoice,
    check_preset,
    choose_preset,
    window_limits,
)

__all__ = [
    "INTEGER_FULL_SCALE",
    "ScaleIntensityForCLIP",
    "ScaleIntensityForCLIPD",
    "ScaleIntensityForCLIPDict",
    "ScaleIntensityForCLIPd",
    "apply_window",
    "check_unit_range",
    "percentile_limits",
    "plain_tensor",
    "scale_",
    "scale_by_percentiles_",
]

INTEGER_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
"""The value that stands for white in the integer types pictures are stored in."""

# Values computed in float32 may leave [0, 1] by rounding; anything beyond this was never in [0, 1].
_ROUNDING = 1e-5


def plain_tensor(array: NdarrayOrTensor) -> Tensor:
    """View an array or a MetaTensor as a tensor without metadata, of the same data type.

    MONAI's conversion turns uint16 arrays into int32, which hides that they are pictures. Arrays in foreign byte order
    (big-endian NIfTI and TIFF), with negative strides or read-only are copied, since torch does not take them.
    """
    if isinstance(array, Tensor):
        plain: Tensor = convert_to_tensor(array, track_meta=False)
        return plain
    native = np.asarray(array)
    return torch.from_numpy(np.require(native, native.dtype.newbyteorder("="), ["C", "W"]))


def check_unit_range(image: Tensor) -> None:
    """Refuse an image that is not float in [0, 1].

    Raises:
        ValueError: another data type, NaN, infinite values, or values out of range.
    """
    if not image.is_floating_point():
        raise ValueError(f"The image must be float in [0, 1], got {image.dtype}: use ScaleIntensityForCLIPd first.")
    low, high = float(image.amin()), float(image.amax())  # aminmax() and max() copy a volume that is a view
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("The image holds NaN or infinite values: use ScaleIntensityForCLIPd first.")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(
            f"A float image must lie in [0, 1], got [{low:g}, {high:g}]: use ScaleIntensityForCLIPd first, or load "
            "pictures as uint8."
        )


class ScaleIntensityForCLIP(Transform):
    """Scale a frame or a volume to [0, 1] float32; shape, metadata and container type are kept.

    What is done depends on the data type:

    - uint8 and uint16 (pictures): divided by 255 or 65535.
    - anything else (raw intensities, such as an MR volume): clipped to two percentiles of the foreground, which map to
      0 and 1, or seen through the CT window that is asked for. Foreground is every finite voxel above the image's
      minimum, but for the background that
      :func:`~monai_anomalyclip.transforms.intensity.find_background` finds, which becomes 0. The percentiles
      are taken once over the whole volume: taken per slice they would make empty slices look abnormal.
    - images that are scaled already, as their meta ``intensity`` tells (all that
      :func:`~monai_anomalyclip.data.load_input` returns): only checked, and divided by 255 if they are uint8.

    Voxels that are NaN or infinite become background (0), with a warning that states their share. A constant image
    becomes zeros, with a warning. When the two percentiles coincide (a foreground of one value), the image's minimum
    and maximum take their place.

    What was done is recorded in the meta ``intensity`` of a MetaTensor, as JSON of an
    :class:`~monai_anomalyclip.transforms.intensity_presets.IntensityChoice`.

    Args:
        lower: percentile of the foreground that maps to 0.
        upper: percentile of the foreground that maps to 1.
        preset: a CT window by its name (for raw volumes in Hounsfield units), or ``"auto"`` or ``"percentile"``.
        eight_bit: leave pictures of 8 bits as they are, a quarter of the memory: only the record is written, and
            whoever shows them to a network divides by 255. Those whose reader has divided them become uint8 again.

    Raises:
        ValueError: the percentiles are not 0 <= lower < upper <= 100, or there is no such preset.

    Example::

        ScaleIntensityForCLIP(preset="ct-brain")(hounsfield_units)  # 0 at 0 HU, 1 at 79 HU
    """

    def __init__(
        self, lower: float = LOWER, upper: float = UPPER, preset: str = "auto", eight_bit: bool = False
    ) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"Percentiles must satisfy 0 <= lower < upper <= 100, got lower={lower}, upper={upper}.")
        self.lower = lower
        self.upper = upper
        self.preset = check_preset(preset)
        self.eight_bit = eight_bit

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Scale one image of any shape.

        Raises:
            ValueError: the image is empty, complex, has no finite voxel, is recorded as scaled but is not in [0, 1],
                is scaled already, but not by what is asked for, or has no window of its own where ``"dicom"`` is.
        """
        raw = plain_tensor(img)
        if raw.is_complex() or raw.numel() == 0:
            raise ValueError(
                f"Only images of real numbers with at least one voxel can be scaled, got {raw.dtype} of shape "
                f"{tuple(raw.shape)}: take the magnitude of complex data first."
            )
        record = img.meta.get("intensity") if isinstance(img, MetaTensor) else None
        full_scale = INTEGER_FULL_SCALE.get(raw.dtype)
        if record:
            done = self._check_record(record)
            scaled = self._unit(raw, full_scale) if full_scale else raw.float()
            if scaled.is_floating_point():
                check_unit_range(scaled)
                if self.eight_bit and done == "none":
                    scaled = _as_stored(scaled)
        else:
            choice = choose_preset("", requested=self.preset, picture=bool(full_scale))
            if full_scale:
                scaled, choice = self._unit(raw, full_scale), choice.with_limits(0.0, full_scale)
            else:
                scaled, choice = self._scale(raw.to(torch.float32, copy=True), choice)
            for warning in choice.warnings:
                warnings.warn(warning, stacklevel=2)
            record = choice.to_json()
        result: NdarrayOrTensor = convert_to_dst_type(scaled, img, dtype=scaled.dtype)[0]
        if isinstance(result, MetaTensor):
            result.meta = {**result.meta, "intensity": record}
        return result

    def _unit(self, raw: Tensor, full_scale: float) -> Tensor:
        return raw if self.eight_bit and raw.dtype == torch.uint8 else raw.float() / full_scale

    def _check_record(self, record: str) -> str:
        """The preset that was applied; refuses what can no longer be done.

        A preset for volumes is no error for pictures, which a study may hold.
        """
        try:
            done: str = json.loads(record)["preset"]
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"The image's meta 'intensity' is no record of a scaling: {record!r}; delete it to scale the image."
            ) from error
        if done == "none":
            for warning in choose_preset("", requested=self.preset, picture=True).warnings:
                warnings.warn(warning, stacklevel=3)
        elif self.preset not in ("auto", done):
            raise ValueError(
                f"The image is scaled already, by the preset {done}: {self.preset} can no longer be applied. Give it "
                "to what reads the file, as load_input(path, {'preset': " + repr(self.preset) + "})."
            )
        elif (self.lower, self.upper) != (LOWER, UPPER):
            raise ValueError(
                f"The image is scaled already: the percentiles {self.lower:g} and {self.upper:g} can no longer be "
                "applied. Read raw values for them, with monai_anomalyclip.data.read_volume."
            )
        return done

    def _scale(self, image: Tensor, choice: IntensityChoice) -> tuple[Tensor, IntensityChoice]:
        """Scale a float32 image in place."""
        finite = image.isfinite()
        share = 1 - int(finite.sum()) / image.numel()
        if share == 1:
            raise ValueError("All voxels are NaN or infinite: the image holds nothing to look at.")
        if share:
            warnings.warn(f"{share:.2%} of the voxels are NaN or infinite; they are taken as background.", stacklevel=3)
        if choice.preset in PRESETS:
            limits = window_limits(*PRESETS[choice.preset])
            return scale_(image, *limits).masked_fill_(~finite, 0), choice.with_limits(*limits)
        choice = scale_by_percentiles_(image, choice, self.lower, self.upper)
        return image, choice


class ScaleIntensityForCLIPd(MapTransform):
    """Dictionary form of :class:`ScaleIntensityForCLIP`.

    Args:
        keys: keys of the images to scale.
        lower: percentile of the foreground that maps to 0.
        upper: percentile of the foreground that maps to 1.
        allow_missing_keys: do not raise when a key is missing.
        preset: a CT window by its name (for raw volumes in Hounsfield units), or ``"auto"`` or ``"percentile"``.

    Example:
        >>> scaled = ScaleIntensityForCLIPd("image", preset="auto")({"image": torch.rand(1, 8, 8, 4)})
        >>> float(scaled["image"].max()) <= 1
        True
    """

    def __init__(
        self,
        keys: KeysCollection,
        lower: float = LOWER,
        upper: float = UPPER,
        allow_missing_keys: bool = False,
        preset: str = "auto",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = ScaleIntensityForCLIP(lower, upper, preset)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of the item with the images scaled."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.scale(item[key])
        return item


ScaleIntensityForCLIPD = ScaleIntensityForCLIPDict = ScaleIntensityForCLIPd


def _as_stored(image: Tensor) -> Tensor:
    """A picture, or frames (..., n), of whole numbers divided by 255 as uint8; all others as they are."""
    levels = torch.empty_like(image, dtype=torch.uint8)
    for frame, level in zip(image.unbind(-1), levels.unbind(-1), strict=True) if image.ndim > 3 else [(image, levels)]:
        level.copy_((frame * 255).round_())
        if not torch.equal(level / 255, frame):
            return image
    return levels


_CHUNK = 2**22
_SAMPLE = 2**23  # values that percentiles are taken of
_DOUBT = (
    "A value that was never measured touches the border and is shown gray: if it is background, set it to the smallest."
)


def scale_(values: Tensor, low: float, high: float) -> Tensor:
    """Map `low` to 0 and `high` to 1 and clip, in place; NaN stay. Equal limits make a step above them."""
    return values.sub_(low).div_(max(high - low, 1e-6)).clamp_(0, 1)


def apply_window(values: NdarrayOrTensor, width: float, level: float) -> Tensor:
    """Values seen through the linear window of DICOM PS3.3 C.11.2.1.2.1 (see :func:`window_limits`).

    Args:
        values: any shape, rescaled to the window's unit.
        width: at least 1.
        level: centre.

    Returns:
        float32 in [0, 1], of the same shape.

    Raises:
        ValueError: the width is below 1.
    """
    copy = torch.as_tensor(values).to(torch.float32, copy=True)
    return scale_(copy, *window_limits(width, level))


def scale_by_percentiles_(
    values: Tensor,
    choice: IntensityChoice,
    lower: float = LOWER,
    upper: float = UPPER,
    sample: Tensor | None = None,
) -> IntensityChoice:
    """Map two percentiles of the foreground to 0 and 1 and the background to 0, in place; values not finite become 0.

    Args:
        values: float32 of any shape, one image or volume.
        choice: the choice of percentiles.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
        sample: what the percentiles are taken of, when `values` are only a part; same layout of axes.

    Returns:
        the choice with the two limits, and sentences on a constant image (which becomes zeros) and on a background
        that is not the smallest value.

    Raises:
        ValueError: no value is finite.

    Example::

        values = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
        scale_by_percentiles_(values, choose_preset("MR"), 0, 100)  # values: 0, 0, 0, 1
    """
    from monai_anomalyclip.transforms.image_background import (  # windows need none of it
        gather_,
        is_far,
        search_background,
        spread_levels,
        surround,
    )

    spread = spread_levels(values if sample is None else sample)
    values = gather_(values, spread)
    whole = values if sample is None else gather_(sample.clone() if spread else sample, spread)
    background, doubt = search_background(whole)
    low, high = percentile_limits(whole, lower, upper, background)
    infinite = ~values.isfinite()
    if low == high:
        values.zero_()
        return choice.with_limits(low, high, "The image is constant; it is scaled to zeros.")
    warnings = [_DOUBT] if doubt else []
    for level in background:
        if level <= low:
            continue  # becomes 0 by itself
        far = is_far(level, low, high)
        if level > high and not far:
            continue  # a bright surround, such as a collimator's: white, as it was
        gathered = any(level == of for *_, of in spread)
        infinite |= (values == level) if far else surround(values, level, gathered)
        warnings.append("A value that fills the border and was never measured lies above others: it is shown black.")
    scale_(values, low, high).masked_fill_(infinite, 0)
    return choice.with_limits(low, high, *warnings)


def percentile_limits(
    values: Tensor, lower: float = LOWER, upper: float = UPPER, background: Sequence[float] = ()
) -> tuple[float, float]:
    """The two percentiles of the foreground, which are to become 0 and 1.

    Foreground is every finite value above the smallest that is not among the background's. Beyond 8 million values the
    percentiles are those of every n-th one, so that memory stays bounded. When they coincide, minimum and maximum take
    their place.

    Args:
        values: any shape; contiguous, or it is copied.
        lower: percentile that maps to 0.
        upper: percentile that maps to 1.
        background: see :func:`~monai_anomalyclip.transforms.image_background.find_background`.

    Returns:
        (low, high); equal if, and only if, all finite values are.

    Raises:
        ValueError: no value is finite.
    """
    from monai_anomalyclip.transforms.image_background import every_nth, finite

    flat = values.flatten()
    minimum, maximum = math.inf, -math.inf
    for start in range(0, len(flat), _CHUNK):
        chunk = finite(flat[start : start + _CHUNK])
        if len(chunk):
            low, high = (float(extreme) for extreme in chunk.aminmax())
            minimum, maximum = min(minimum, low), max(maximum, high)
    if minimum > maximum:
        raise ValueError("All voxels are NaN or infinite: the image holds nothing to look at.")
    sample = every_nth(flat, _SAMPLE)
    foreground = finite(sample[sample > minimum])
    for level in background:
        foreground = foreground[foreground != level]
    if not len(foreground):
        return minimum, maximum
    # MONAI's percentile also works beyond the 16 million values at which torch.quantile gives up.
    low, high = torch.as_tensor(percentile(foreground, [lower, upper])).tolist()
    return (low, high) if low < high else (minimum, maximum)
