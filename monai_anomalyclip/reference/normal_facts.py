# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of an image beside its patches: content, patient, size, brightness, a thumbnail.

A reference remembers it of its normals, and it tells how far from all of them another image is. On request, framing
and brightness are made alike before images are compared.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_anomalyclip.reference.conformal import RECOMMENDED_NORMALS
from monai_anomalyclip.transforms.intensity import INTEGER_FULL_SCALE, check_unit_range, plain_tensor

__all__ = [
    "ALIKE",
    "Framing",
    "NormalFacts",
    "as_unit_image",
    "doubts_about",
    "facts_of_image",
    "few_normals",
    "group_key",
    "known_modalities",
    "make_alike",
    "modality_of",
    "near_duplicates",
    "preset_of",
    "refuse_other_preset",
]

THUMBNAIL = 16
"""Side of the thumbnails that near-duplicates are found by."""

FAR_OUT = 1.15
"""From this multiple of the largest median patch distance among the normals an image is of another kind."""

FLOOR = "p is the smallest that {k} normals allow: with more it could be smaller."

_ALIKE = 0.995  # correlation of two thumbnails from which images are near-duplicates
_CLOSE = 4.0  # and their largest root mean square difference, of 255
_PLAIN = 2.0  # standard deviation, of 255, below which a thumbnail shows nothing to compare
_BLOCK = 1024
_SIZE = 1.5  # times larger or smaller than all normals
_SHAPE = 1.25  # times wider or taller
_BRIGHTNESS = 0.1  # brighter or darker than all normals, of black to white


ALIKE = ("brightness", "framing")
"""What can be made alike."""
_BACKGROUND = 0.05  # of the brightest value: darker is taken for the frame around what is shown
_LOWEST, _HIGHEST = 0.01, 0.99  # quantiles of what is shown that become black and white


@dataclass(frozen=True)
class NormalFacts:
    """Facts of one image.

    Attributes:
        digest: SHA-256 of its values as 8 bit, whatever file they came from.
        group: keyed hash of the patient, or the digest where no group is known.
        size: rows and columns.
        brightness: mean gray value, in [0, 1].
        thumbnail: (256,) uint8.
    """

    digest: bytes
    group: bytes
    size: tuple[int, int]
    brightness: float
    thumbnail: Tensor


def as_unit_image(image: Tensor) -> Tensor:
    """An image as (3, H, W) or (1, H, W) float32 in [0, 1], without metadata.

    Args:
        image: float in [0, 1], or uint8 or uint16; (H, W), (1, H, W) or (3, H, W).

    Raises:
        ValueError: another shape, NaN, or values out of [0, 1].
    """
    plain = plain_tensor(image)
    plain = plain[None] if plain.ndim == 2 else plain
    if plain.ndim != 3 or plain.shape[0] not in (1, 3) or plain.numel() == 0:
        raise ValueError(f"Expected an image (3, H, W) or (1, H, W), got shape {tuple(plain.shape)}.")
    full = INTEGER_FULL_SCALE.get(plain.dtype)
    unit = plain.float() / full if full else plain
    check_unit_range(unit)
    return unit.float().clamp(0, 1)


def preset_of(image: Tensor) -> str:
    """The intensity preset that an image was scaled with, from its meta ``intensity``; "" where it says nothing."""
    record = image.meta.get("intensity") if isinstance(image, MetaTensor) else None
    if not record:
        return ""
    try:
        return str(json.loads(record)["preset"])
    except (TypeError, ValueError, KeyError, RecursionError):
        return ""


def modality_of(image: Tensor) -> str:
    """DICOM's code of an image's modality, from its meta ``modality``; "" where it says nothing."""
    return str(image.meta.get("modality") or "") if isinstance(image, MetaTensor) else ""


def known_modalities(settings: Mapping[str, Any]) -> list[str]:
    """DICOM's codes of the modalities that a reference's normals have, as its settings hold them."""
    return [code for code in str(settings.get("modality") or "").split("/") if code]


def refuse_other_preset(preset: str, own: str) -> None:
    """Refuse an intensity preset other than the normals'; "" is unknown and passes.

    Raises:
        ValueError: it is another; pictures, which are used as they are, have "none".
    """
    if not preset or not own or preset == own:
        return
    if "none" in (preset, own):
        kinds = ("a picture", "volumes") if preset == "none" else ("no picture", "pictures")
        raise ValueError(
            f"The image is {kinds[0]} and the reference's normals are {kinds[1]} (intensity presets {preset} and "
            f"{own}): build a reference of inputs of its kind."
        )
    raise ValueError(
        f"The image was scaled with the intensity preset {preset}, the reference's normals with {own}: read "
        f"it with --preset {own}, or build a reference with {preset}."
    )


def group_key(group: str, salt: bytes) -> bytes:
    """Keyed SHA-256 of a patient or another group: it can be compared within a reference and tells no name."""
    return hmac.new(salt, group.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()


def facts_of_image(image: Tensor, group: str | None, salt: bytes) -> NormalFacts:
    """Facts of an image that :func:`as_unit_image` gave.

    Args:
        image: (3, H, W) or (1, H, W) in [0, 1].
        group: the patient or another group that it belongs to; None when it stands alone.
        salt: of the reference, for the group's key.
    """
    bytes_ = (image * 255).round().to(torch.uint8)
    if len(bytes_) == 3 and bool((bytes_[0] == bytes_[1]).all() and (bytes_[0] == bytes_[2]).all()):
        bytes_ = bytes_[:1]  # gray is gray, however many channels it was stored in
    digest = hashlib.sha256(repr(tuple(bytes_.shape)).encode())
    digest.update(np.ascontiguousarray(bytes_.cpu().numpy()).data)
    gray = image.mean(0)
    small = F.interpolate(gray[None, None].cpu(), size=(THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
    thumbnail = (small * 255).round().clamp(0, 255).to(torch.uint8).flatten()
    key = digest.digest()
    return NormalFacts(
        key,
        key if group is None else group_key(group, salt),
        (int(image.shape[1]), int(image.shape[2])),
        float(gray.mean()),
        thumbnail,
    )


def near_duplicates(facts: Sequence[NormalFacts]) -> list[tuple[int, int]]:
    """Pairs of images of different groups that are nearly the same picture: stored anew, resized, or the next slice.

    It compares thumbnails of 256 numbers, which takes a second for 10,000 images. Pictures that show hardly anything
    are left out: all of them look alike.

    Returns:
        pairs of indices, the smaller one first; of a set of twins each is named with the first of them.
    """
    if len(facts) < 2:
        return []
    raw = torch.stack([one.thumbnail for one in facts]).float()
    centred = raw - raw.mean(1, keepdim=True)
    lengths = centred.norm(dim=1)
    unit = centred / lengths.clamp(min=1e-6)[:, None]
    shows = lengths >= _PLAIN * THUMBNAIL  # the length is the standard deviation times the root of 256
    found: list[tuple[int, int]] = []
    named: set[int] = set()
    for start in range(0, len(raw), _BLOCK):
        alike = unit[start : start + _BLOCK] @ unit.T >= _ALIKE
        alike &= shows[start : start + _BLOCK, None] & shows[None]
        for row, column in alike.nonzero().tolist():
            first, second = start + row, column
            if first >= second or second in named or facts[first].group == facts[second].group:
                continue
            if float((raw[first] - raw[second]).square().mean().sqrt()) <= _CLOSE:
                found.append((first, second))
                named.add(second)
    return found


def doubts_about(
    facts: NormalFacts, normals: Sequence[NormalFacts], median: float, largest_median: float | None
) -> dict[str, str]:
    """What of an image's looks is far from the normals'.

    Args:
        facts: of the image.
        normals: facts of the normals.
        median: of its patch distances.
        largest_median: of the normals, each found without its own help; None where there is no other.
    """
    doubts = {}
    if largest_median is not None and median > FAR_OUT * largest_median:
        doubts["out_of_reference"] = (
            f"Nearly everything in this image is {median / largest_median:.1f} times as far from the normals as they "
            "are from each other: it is probably of another kind (modality, body part, view or processing)."
        )
    pixels = [one.size[0] * one.size[1] for one in normals]
    ratios = [one.size[1] / one.size[0] for one in normals]
    own, ratio = facts.size[0] * facts.size[1], facts.size[1] / facts.size[0]
    if (
        not min(pixels) / _SIZE <= own <= max(pixels) * _SIZE
        or not min(ratios) / _SHAPE <= ratio <= max(ratios) * _SHAPE
    ):
        doubts["size"] = (
            f"Its size, {facts.size[0]} x {facts.size[1]} pixels, is far from that of all normals: part of the "
            "distance may come from that."
        )
    low, high = min(one.brightness for one in normals), max(one.brightness for one in normals)
    if not low - _BRIGHTNESS <= facts.brightness <= high + _BRIGHTNESS:
        doubts["brightness"] = (
            f"Its mean gray value, {facts.brightness:.2f}, is far from the normals' {low:.2f} to {high:.2f}: part of "
            "the distance may come from that."
        )
    return doubts


def few_normals(k: int) -> str:
    """The sentence on a small number of normals."""
    return f"{k} normals are few: {RECOMMENDED_NORMALS} are recommended."


@dataclass(frozen=True)
class Framing:
    """The part of an image that was compared, in pixels: rows `top` to `bottom`, columns `left` to `right`."""

    top: int
    bottom: int
    left: int
    right: int


def make_alike(image: Tensor, what: tuple[str, ...]) -> tuple[Tensor, Framing]:
    """Cut the dark frame off ("framing") and stretch the gray values to black and white ("brightness").

    Args:
        image: (C, H, W) in [0, 1].
        what: of :data:`ALIKE`.

    Returns:
        the image, cut and stretched, and which part of it is left.

    Raises:
        ValueError: for an unknown word.
    """
    if not set(what) <= set(ALIKE):
        raise ValueError(f"Only {' and '.join(ALIKE)} can be made alike, not {', '.join(sorted({*what} - {*ALIKE}))}.")
    framing = Framing(0, image.shape[1], 0, image.shape[2])
    shown = image.amax(0) > _BACKGROUND * image.max()
    if "framing" in what and bool(shown.any()):
        rows, columns = (shown.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        framing = Framing(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        image = image[:, framing.top : framing.bottom, framing.left : framing.right]
        shown = shown[framing.top : framing.bottom, framing.left : framing.right]
    if "brightness" in what and bool(shown.any()):
        values = image.mean(0)[shown]
        ordered = values.sort().values
        low, high = (float(ordered[round(share * (len(ordered) - 1))]) for share in (_LOWEST, _HIGHEST))
        if high > low:
            image = ((image - low) / (high - low)).clamp(0, 1)
    return image, framing
