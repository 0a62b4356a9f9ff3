# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a person should know of a reference's normals, without anything of the images themselves."""

from __future__ import annotations

import hashlib
from typing import Any

from monai_anomalyclip.reference.conformal import RECOMMENDED_NORMALS
from monai_anomalyclip.reference.normal_facts import known_modalities, near_duplicates
from monai_anomalyclip.reference.reference_file import ReferenceContent

__all__ = ["description_of", "notes_on", "unit_of"]

_SHOWN = 10
_SIZES = 2  # times as many pixels in the largest image as in the smallest


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
