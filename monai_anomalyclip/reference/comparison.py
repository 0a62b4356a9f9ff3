# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What comes out when an image is compared with a reference, and what speaks against believing it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_anomalyclip.reference.bank_growth import group_numbers
from monai_anomalyclip.reference.conformal import RECOMMENDED_NORMALS, ConformalScores
from monai_anomalyclip.reference.memory_bank import MemoryBank, image_score
from monai_anomalyclip.reference.normal_facts import (
    FLOOR,
    Framing,
    NormalFacts,
    doubts_about,
    few_normals,
    known_modalities,
    near_duplicates,
)
from monai_anomalyclip.reference.reference_file import ReferenceContent
from monai_anomalyclip.transforms.anomaly_map import resize_anomaly_map

__all__ = [
    "Comparison",
    "RankedNormal",
    "calibration_of",
    "compare",
    "description_of",
    "notes_on",
    "unit_of",
    "volume_p_value",
]

_SHOWN = 10
_SIZES = 2  # times as many pixels in the largest image as in the smallest


@dataclass(frozen=True)
class Comparison:
    """One image beside the normals.

    Attributes:
        score: distance of its farthest patches to the normals' nearest, in [0, 1]: it ranks images.
        patch_map: (rows, columns) distance of each patch, in [0, 1].
        anomaly_map: (1, H, W) the same on the image's own grid.
        calibration: the normals' scores, each found without its own help but with that of this image.
        p_value: share of normals, this image counted in, at least as far; None for fewer than four normals.
        doubts: sentences that speak against believing the above, by a word for each: ``out_of_reference``, ``size``,
            ``brightness``, ``modality``, ``shared_image``, ``shared_patient``, ``few_normals``, ``floor``.
        volumes: what the score of a volume's farthest slice is compared with: that of each normal volume; None where
            the reference keeps only some of their slices and nobody asked for these scores
            (:meth:`NormalReference.score_groups`).
    """

    score: float
    patch_map: Tensor
    anomaly_map: Tensor
    calibration: ConformalScores
    p_value: float | None
    doubts: Mapping[str, str]
    volumes: ConformalScores | None = None

    @property
    def k(self) -> int:
        """Number of normals, or of patients, that it was compared with."""
        return self.calibration.k

    @property
    def smallest_p(self) -> float:
        """What p can be at least, 1 / (k + 1)."""
        return self.calibration.smallest_p

    @property
    def sentence(self) -> str:
        """What it says, for people."""
        return self.calibration.sentence(self.p_value)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps, as JSON values."""
        return {
            "score": self.score,
            "p_value": self.p_value,
            "k": self.k,
            "smallest_p": self.smallest_p,
            "says": self.sentence,
            "doubts": dict(self.doubts),
        }


@dataclass(frozen=True)
class RankedNormal:
    """A normal image among the others.

    Attributes:
        index: its place, from 0, in the order in which images came.
        score: distance to the others, as that of an image that is compared.
        p_value: among the others; None for fewer than four of them.
        digest: SHA-256 of its content.
    """

    index: int
    score: float
    p_value: float | None
    digest: bytes


def volume_p_value(slices: Sequence[Comparison]) -> float | None:
    """The p-value of a volume by its farthest slice, compared with the farthest slice of each normal volume.

    It holds where volumes have about as many slices as the normal ones: the farthest of many slices is farther than
    the farthest of a few.

    Args:
        slices: what :meth:`NormalReference.score` said of each slice of the volume.

    Returns:
        the p-value; None for fewer than four normal volumes, or where ``volumes`` is None.

    Raises:
        ValueError: there is no slice.
    """
    if not slices:
        raise ValueError("A volume without slices has no p-value.")
    farthest = max(slices, key=lambda one: one.score)
    return None if farthest.volumes is None else farthest.volumes.p_value(farthest.score)


def calibration_of(content: ReferenceContent, distances: Tensor, without: bytes | None = None) -> ConformalScores:
    """Scores of the images that are kept whole.

    Args:
        content: of the reference.
        distances: (w, patches) of the images that are kept whole.
        without: a group that is left out.

    Raises:
        ValueError: nothing is left.
    """
    groups = [content.facts[index].group for index in content.whole]
    kept = [place for place, group in enumerate(groups) if group != without]
    scores = image_score(distances[kept]).double().numpy()
    return ConformalScores(scores, [groups[place].hex() for place in kept], unit=unit_of(content))


def compare(
    content: ReferenceContent,
    bank: MemoryBank,
    features: Tensor,
    facts: NormalFacts,
    framing: Framing,
    size: tuple[int, int],
) -> Comparison:
    """Compare the features of an image with a reference.

    The normals' scores are found as if the image were one of them, so that for an image of their kind every rank among
    them is equally likely, however few they are (full conformal prediction, Vovk et al., 2005).

    Args:
        content: of the reference, with the distances among its normals.
        bank: of the reference.
        features: (patches, C) of the image.
        facts: of the image.
        framing: the part of the image that was encoded.
        size: rows and columns of the image.

    Raises:
        ValueError: the reference holds images of the image's own patient only.
    """
    assert content.leave_one_out is not None
    among = content.leave_one_out
    shared, own = _shared(content, facts)
    number = None if own is None else group_numbers(content)[[one.group for one in content.facts].index(own)]
    distances, back = bank.nearest(features, number)
    if bool(distances.isinf().any()):
        raise ValueError("All normal images are of this image's own patient: there is none to compare it with.")
    calibration = calibration_of(content, torch.minimum(among, back), own)
    score = float(image_score(distances))
    p = calibration.p_value(score)
    medians = among.median(1).values
    medians = medians[medians.isfinite()]
    largest = float(medians.max()) if len(medians) else None
    doubts = {**shared, **doubts_about(facts, content.facts, float(distances.median()), largest)}
    if calibration.k < RECOMMENDED_NORMALS:
        doubts["few_normals"] = few_normals(calibration.k)
    if p is not None and math.isclose(p, calibration.smallest_p):
        doubts["floor"] = FLOOR.format(k=calibration.k)
    side = math.isqrt(len(distances))
    patch_map = distances.reshape(side, side)
    anomaly_map = torch.zeros(1, *size)
    anomaly_map[:, framing.top : framing.bottom, framing.left : framing.right] = resize_anomaly_map(
        patch_map[None, None], (framing.bottom - framing.top, framing.right - framing.left)
    )[0]
    return Comparison(score, patch_map, anomaly_map, calibration, p, doubts, _volumes(content, calibration, own))


def _volumes(content: ReferenceContent, calibration: ConformalScores, own: bytes | None) -> ConformalScores | None:
    """Scores of whole volumes, or other groups of images."""
    if len(content.whole) == len(content.facts):
        return calibration.largest_of_each()
    groups = {one.group for one in content.facts}
    if not groups <= set(content.group_scores):
        return None
    others = sorted(groups - {own})
    return ConformalScores([content.group_scores[group] for group in others], unit=unit_of(content))


def _shared(content: ReferenceContent, facts: NormalFacts) -> tuple[dict[str, str], bytes | None]:
    """What image and reference share, and the group that must not help."""
    for one in content.facts:
        if one.digest == facts.digest:
            said = "This image is one of the reference's normal images: it was compared with the others only."
            return {"shared_image": said}, one.group
    if any(one.group == facts.group for one in content.facts):
        said = "The reference holds images of this image's patient: it was compared with those of others only."
        return {"shared_patient": said}, facts.group
    return {}, None


def unit_of(content: ReferenceContent) -> str:
    """What counts as one normal: images, or patients and inputs where some have several images."""
    groups = {one.group for one in content.facts}
    return "normal images" if len(groups) == len(content.facts) else "normal patients or inputs"


def notes_on(content: ReferenceContent) -> list[str]:
    """Sentences on the normals: too few, several of one patient, near-duplicates, sizes that differ.

    Args:
        content: of the reference.

    Returns:
        sentences; images are named by their places, from 1, in the order in which they came.
    """
    facts, notes = content.facts, []
    groups = len({one.group for one in facts})
    if groups < RECOMMENDED_NORMALS:
        unit = unit_of(content)
        known = "There is one normal image or patient" if groups == 1 else f"There are {groups} {unit}"
        notes.append(f"{known}; {RECOMMENDED_NORMALS} are recommended.")
    if groups < len(facts):
        whose = (
            "one patient or input, and count as one normal"
            if groups == 1
            else (f"{groups} patients or inputs, which are kept apart and count as that many normals")
        )
        notes.append(f"{len(facts)} images come from {whose}.")
    if twins := near_duplicates(facts):
        shown = ", ".join(f"{first + 1} and {second + 1}" for first, second in twins[:_SHOWN])
        more = f" and {len(twins) - _SHOWN} more pairs" if len(twins) > _SHOWN else ""
        notes.append(
            f"Nearly the same picture: {shown}{more}. If they show one patient, p-values come out too small: say whose "
            "they are, or leave one out."
        )
    pixels = [one.size[0] * one.size[1] for one in facts]
    if max(pixels, default=0) > _SIZES * min(pixels, default=0):
        notes.append("The normals' sizes differ by more than a factor of two: one reference should hold one kind.")
    if len(modalities := known_modalities(content.settings)) > 1:
        notes.append(f"The normals are of several modalities ({', '.join(modalities)}): one reference should hold one.")
    return notes


def description_of(content: ReferenceContent) -> dict[str, Any]:
    """What a reference is, as JSON values.

    Returns:
        encoder and settings; ``images``, ``k`` (patients or images of their own), ``smallest_p``; ``compared_whole``
        and ``patches``, what is kept; ``digest`` of the images' contents, whatever their order.
    """
    digests = sorted(one.digest for one in content.facts)
    groups = len({one.group for one in content.facts})
    return {
        "encoder": content.encoder.name,
        "encoder_digest": content.encoder.digest,
        "encoder_settings": dict(content.encoder.settings),
        **content.settings,
        "images": len(digests),
        "k": groups,
        "smallest_p": 1 / (groups + 1),
        "compared_whole": len(content.whole),
        "patches": sum(len(one) for one in content.patches),
        "digest": hashlib.sha256(b"".join(digests)).hexdigest(),
    }
