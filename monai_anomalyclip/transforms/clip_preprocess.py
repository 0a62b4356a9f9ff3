# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP pre-processing: pictures and masks to the square the network sees, equal to the published implementation."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tvf
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms.transform import MapTransform, Transform
from monai.transforms.utils import scale_affine
from monai.utils.misc import ensure_tuple_rep
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image, ImageOps
from torch import Tensor

from monai_anomalyclip.transforms.intensity import INTEGER_FULL_SCALE, check_unit_range, plain_tensor

__all__ = [
    "CLIPMaskPreprocess",
    "CLIPMaskPreprocessD",
    "CLIPMaskPreprocessDict",
    "CLIPMaskPreprocessd",
    "CLIPPreprocess",
    "CLIPPreprocessD",
    "CLIPPreprocessDict",
    "CLIPPreprocessd",
    "antialiasing_device",
    "clip_normalize_resize",
    "image_size_pair",
    "resized_meta",
]


def image_size_pair(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Read an image size, given as one side of a square or as (H, W).

    Raises:
        ValueError: not one or two positive whole numbers.
    """
    sides = list(image_size) if isinstance(image_size, Sequence) else [image_size]
    if len(sides) not in (1, 2) or any(not isinstance(side, int) or side < 1 for side in sides):
        raise ValueError(f"image_size must be a positive whole number or a pair (H, W) of them, got {image_size!r}.")
    height, width = ensure_tuple_rep(sides if len(sides) == 2 else sides[0], 2)
    return height, width


def clip_normalize_resize(image: Tensor, size: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Squash images to the network's input size (aspect not kept) and normalise them with CLIP's mean and std.

    A picture of 8 bits gives the same result to the last bit however it comes, as uint8 or as the same numbers divided
    by 255, and on whatever device: it is resized by PIL, as the published implementation does. Whether an image is one
    its values tell, since readers and arrays have many ways to say so. All others are resized in float32.

    Args:
        image: (B, 3, H, W) or (3, H, W), float in [0, 1] or uint8; or gray with one channel, which is repeated.
        size: (H, W) of the result.
        device: where the result goes, and where what is float is resized; the image's own by default.

    Returns:
        (B, 3, *size) or (3, *size), float32: antialiased bicubic, clamped to [0, 1] as PIL does (bicubic interpolation
        overshoots), normalised.

    Example::

        clip_normalize_resize(torch.rand(2, 1, 300, 400), (518, 518)).shape  # (2, 3, 518, 518)
    """
    batch = image if image.ndim == 4 else image[None]
    device = image.device if device is None else device
    pictures = {number: levels for number, item in enumerate(batch) if (levels := _eight_bit_levels(item)) is not None}
    others = [number for number in range(len(batch)) if number not in pictures]
    parts: dict[int, Tensor] = {}
    if others:
        rest = _on_device(
            batch if len(others) == len(batch) else batch[others], antialiasing_device(device, batch.shape[-2:], size)
        )
        resized = tvf.resize(rest, list(size), interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
        parts = dict(zip(others, _normalize(resized.to(device)), strict=True))
    if pictures:
        exact = torch.stack([_resized_by_pil(levels, size) for levels in pictures.values()])
        parts |= zip(pictures, _normalize(exact.to(device)), strict=True)
    result = torch.stack([parts[number] for number in range(len(batch))])
    return result if image.ndim == 4 else result[0]


def resized_meta(result: Tensor, source: Any) -> Tensor:
    """Give a resized picture (C, h, w) the metadata of its source (C, H, W), with the affine scaled to the new size.

    A source without metadata leaves the result as it is.
    """
    if not isinstance(source, MetaTensor):
        return result
    affine = source.affine
    scale = to_affine_nd(affine.shape[-1] - 1, scale_affine(tuple(source.shape[-2:]), tuple(result.shape[-2:])))
    meta: Tensor = MetaTensor(result).copy_meta_from(source)
    meta.affine = affine @ torch.as_tensor(scale, dtype=affine.dtype)  # type: ignore[attr-defined]
    return meta


class CLIPPreprocess(Transform):
    """Turn a picture into the network's input, (3, S, S) float32, normalised with CLIP's mean and std.

    PIL images of any mode: the EXIF rotation is applied; 16- and 32-bit gray (``I;16``, ``I``) is divided by 65535;
    float gray (``F``) is divided by 1, 255 or 65535, the smallest that holds its maximum; all others are converted
    to RGB, alpha dropped, not composited, as CLIP's own pre-processing does.

    Arrays and tensors (C, H, W), C = 1 (gray), 3 (RGB) or 4 (RGBA, alpha dropped): uint8 in 0..255, uint16 in 0..65535,
    or float in [0, 1].

    A MetaTensor stays one, with its affine scaled to the new pixel size; everything else becomes a plain tensor.

    Args:
        image_size: side S of the result, or (H, W).

    Raises:
        ValueError: the image size is not positive.

    Example:
        >>> CLIPPreprocess(28)(torch.rand(3, 40, 50)).shape
        torch.Size([3, 28, 28])
    """

    def __init__(self, image_size: int | Sequence[int]) -> None:
        self.size = image_size_pair(image_size)

    def __call__(self, img: Image.Image | NdarrayOrTensor) -> Tensor:
        """Pre-process one picture.

        Raises:
            ValueError: wrong rank or number of channels, another integer type, values out of range, NaN or infinite.
        """
        if isinstance(img, Image.Image):
            return clip_normalize_resize(_pil_picture(img), self.size)
        return resized_meta(clip_normalize_resize(_array_picture(img), self.size), img)


class CLIPPreprocessd(MapTransform):
    """Dictionary form of :class:`CLIPPreprocess`.

    Args:
        keys: keys of the pictures.
        image_size: side S of the result, or (H, W).
        allow_missing_keys: do not raise when a key is missing.

    Example:
        >>> CLIPPreprocessd("image", 28)({"image": torch.rand(3, 40, 50)})["image"].shape
        torch.Size([3, 28, 28])
    """

    def __init__(self, keys: KeysCollection, image_size: int | Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.preprocess = CLIPPreprocess(image_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with the pictures pre-processed."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.preprocess(item[key])
        return item


class CLIPMaskPreprocess(Transform):
    """Turn a mask into (1, S, S) float32 of 0 (normal) and 1 (anomaly), as published: > 0, bilinear resize, > 0.5.

    Masks are PIL images of any mode (every pixel with a colour other than black that is not fully transparent is
    anomaly; the EXIF rotation is applied) or arrays and tensors (H, W) or (1, H, W) (every value > 0 is anomaly).
    The resize is antialiased with 8-bit rounding, as PIL's. A MetaTensor stays one, with its affine scaled.

    Args:
        image_size: side S of the result, or (H, W).

    Raises:
        ValueError: the image size is not positive.

    Example:
        >>> CLIPMaskPreprocess(8)(torch.ones(1, 4, 6)).shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, image_size: int | Sequence[int]) -> None:
        self.size = image_size_pair(image_size)

    def __call__(self, mask: Image.Image | NdarrayOrTensor) -> Tensor:
        """Pre-process one mask.

        Raises:
            ValueError: wrong rank or number of channels, NaN.
        """
        marked = _pil_mask(mask) if isinstance(mask, Image.Image) else _array_mask(mask)
        white = marked.to("cpu", torch.uint8)[None, None] * 255  # on a CPU torch resizes 8 bits as PIL does
        resized = F.interpolate(white, self.size, mode="bilinear", antialias=True)[0].to(marked.device)
        return resized_meta((resized > 127).float(), mask)


class CLIPMaskPreprocessd(MapTransform):
    """Dictionary form of :class:`CLIPMaskPreprocess`.

    Args:
        keys: keys of the masks.
        image_size: side S of the result, or (H, W).
        allow_missing_keys: do not raise when a key is missing (a normal item may have no mask).

    Example:
        >>> CLIPMaskPreprocessd("label", 8)({"label": torch.ones(1, 4, 6)})["label"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, keys: KeysCollection, image_size: int | Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.preprocess = CLIPMaskPreprocess(image_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with the masks pre-processed."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.preprocess(item[key])
        return item


_ROUNDING = 1e-3  # of an 8-bit level: what a division by 255, or a multiplication by 1/255, leaves in float32


def _eight_bit_levels(picture: Tensor) -> Tensor | None:
    """The picture as uint8 if that is what it holds, else None."""
    if picture.dtype == torch.uint8:
        return picture
    levels = picture.float() * 255
    whole = levels.round()
    # A few values tell of most images that they are none.
    for step in (max(1, picture.numel() // 4096), 1):
        if float((levels.flatten()[::step] - whole.flatten()[::step]).abs().max()) > _ROUNDING:
            return None
    return whole.to(torch.uint8)


def _resized_by_pil(levels: Tensor, size: Sequence[int]) -> Tensor:
    pixels = levels.permute(1, 2, 0).contiguous().cpu().numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized: Tensor = tvf.pil_to_tensor(picture.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return resized


def _on_device(batch: Tensor, device: torch.device) -> Tensor:
    # From pinned memory the copy runs beside what the GPU still computes. Contiguous first: the slices of a volume lie
    # so far apart that pinning them as they are would pin the volume.
    staged = batch.contiguous().pin_memory() if device.type == "cuda" and batch.device.type == "cpu" else batch
    return staged.to(device, torch.float32, non_blocking=True)


def _normalize(resized: Tensor) -> Tensor:
    """Gray or RGB (B, 1 or 3, H, W), uint8 or float, to normalised RGB."""
    unit = tvf.convert_image_dtype(resized, torch.float32).clamp(0, 1).expand(-1, 3, -1, -1)
    mean, deviation = _mean_and_deviation(unit.device)
    normalized: Tensor = unit.sub(mean).div_(deviation)
    return normalized


@functools.cache
def _mean_and_deviation(device: torch.device) -> tuple[Tensor, Tensor]:
    # Once: moving them to a GPU makes it wait.
    with torch.inference_mode(False):
        mean, deviation = (torch.tensor(list(v), device=device) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return mean[:, None, None], deviation[:, None, None]


_SHARED = 12_288  # float32 values in the 48 KiB that the threads of a block share on every NVIDIA GPU
_COLUMNS = 32  # of a block
_MOST_BLOCKS = 65_535  # down a picture; one may have a single row


def antialiasing_device(device: torch.device, before: Sequence[int], after: Sequence[int]) -> torch.device:
    """Where images are resized with antialiasing: on the CPU where torch's kernel for GPUs cannot, such as to 5 rows.

    A block of that kernel shares the weights of each of its columns and rows and, for each of its pixels, a row's
    values. The window is taken to be that of bicubic interpolation, twice as wide as bilinear.

    Args:
        device: where it would be done.
        before: (H, W).
        after: (H, W).
    """
    high, wide = (1 + 2 * math.ceil(2 * max(1.0, old / new)) for old, new in zip(before, after, strict=True))
    possible = _COLUMNS * wide + (_COLUMNS + 1) * high <= _SHARED and after[0] <= _MOST_BLOCKS
    return device if possible or device.type != "cuda" else torch.device("cpu")


def _pil_picture(img: Image.Image) -> Tensor:
    """Upright (3, H, W): uint8, or in [0, 1] for gray of more than 8 bits."""
    upright = ImageOps.exif_transpose(img)
    if upright.mode == "F" or upright.mode.startswith("I"):
        gray = plain_tensor(np.asarray(upright)).float()
        low, high = float(gray.min()), float(gray.max())
        scales = [scale for scale in (1.0, 255.0, 65535.0) if high <= scale] if upright.mode == "F" else [65535.0]
        if not (scales and low >= 0 and high <= scales[0]):
            raise ValueError(
                f"A PIL image of mode {upright.mode} must hold values in 0..65535, got [{low:g}, {high:g}]: "
                "scale it to [0, 1] and pass it as an array."
            )
        return (gray / scales[0]).expand(3, -1, -1)
    if upright.mode == "La":  # the one mode that PIL cannot convert in one step
        upright = upright.convert("LA")
    if "transparency" in upright.info:  # PIL warns about palettes with transparency that skip RGBA
        upright = upright.convert("RGBA")
    rgb: Tensor = tvf.pil_to_tensor(upright.convert("RGB"))
    return rgb


def _array_picture(img: NdarrayOrTensor) -> Tensor:
    """(3, H, W), uint8 or float in [0, 1], checked."""
    picture = plain_tensor(img)
    if picture.ndim != 3 or picture.shape[0] not in (1, 3, 4) or picture.numel() == 0:
        raise ValueError(
            f"Expected a picture (C, H, W) with 1 (gray), 3 (RGB) or 4 (RGBA) channels first, got shape "
            f"{tuple(picture.shape)}."
        )
    picture = picture[:3].expand(3, -1, -1)
    if picture.dtype == torch.uint8:
        return picture
    if picture.dtype in INTEGER_FULL_SCALE:
        return picture.float() / INTEGER_FULL_SCALE[picture.dtype]
    check_unit_range(picture)
    return picture


def _pil_mask(mask: Image.Image) -> Tensor:
    upright = ImageOps.exif_transpose(mask)
    if upright.mode in ("1", "L", "F") or upright.mode.startswith("I"):
        return _array_mask(np.asarray(upright))
    if upright.mode == "La":
        upright = upright.convert("LA")
    rgba = np.asarray(upright.convert("RGBA"))
    return torch.from_numpy(rgba[..., :3].any(axis=-1) & (rgba[..., 3] > 0))


def _array_mask(mask: NdarrayOrTensor) -> Tensor:
    """(H, W) bool, checked."""
    values = plain_tensor(mask)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"Expected a mask (H, W) or (1, H, W), got shape {tuple(values.shape)}.")
    if values.is_floating_point() and values.isnan().any():
        raise ValueError("The mask holds NaN: write 0 for normal pixels and 1 for anomalous ones.")
    return values.double() > 0  # torch cannot compare uint16


CLIPPreprocessD = CLIPPreprocessDict = CLIPPreprocessd
CLIPMaskPreprocessD = CLIPMaskPreprocessDict = CLIPMaskPreprocessd
