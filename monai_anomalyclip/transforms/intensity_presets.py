# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which intensities become black and white: named CT windows, percentiles of the foreground, and how one is chosen.

What is then done to the values is in :mod:`monai_anomalyclip.transforms.intensity`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

__all__ = [
    "PRESETS",
    "PRESET_NAMES",
    "RADIOGRAPHS",
    "IntensityChoice",
    "Window",
    "check_preset",
    "choose_preset",
    "window_limits",
]


class Window(NamedTuple):
    """A display window: its width and level (centre), in Hounsfield units for CT."""

    width: float
    level: float


PRESETS: dict[str, Window] = {
    "ct-brain": Window(80, 40),
    "ct-subdural": Window(200, 75),
    "ct-bone": Window(1800, 400),
    "ct-lung": Window(1500, -600),
    "ct-soft": Window(400, 40),
    "ct-liver": Window(160, 60),
    "ct-mediastinum": Window(350, 50),
}
"""Customary CT windows in Hounsfield units."""

PRESET_NAMES = ("auto", *PRESETS, "percentile", "dicom")
"""What can be asked for: ``"auto"`` (see `choose_preset`), a window, ``"percentile"``, the file's own window."""

RADIOGRAPHS = ("CR", "DX", "MG", "IO", "PX")
"""Modalities whose images are shown in the window of the file."""

LOWER, UPPER = 0.5, 99.5
"""The percentiles of the foreground that become black and white."""

# What a word of the body part or of a protocol says about the windows that suit. A word of several windows does not
# decide alone, but rules the others out; one without any leaves doubt.
_KEYWORDS: dict[str, frozenset[str]] = {
    word: frozenset(presets)
    for words, presets in (
        ("HEAD BRAIN SKULL CRANIUM CEREBRUM NEURO", ("ct-brain",)),
        ("SUBDURAL", ("ct-subdural",)),
        ("BONE BONES OSSEOUS PETROUS KNOCHEN FELSENBEIN OSSEUX OSSEUSE OSSO HUESO", ("ct-bone",)),
        ("DENTAL DENTALCT DENTALSCAN DENTASCAN TEETH TOOTH MANDIBLE MAXILLA JAW CBCT DVT", ("ct-bone",)),
        ("TEMPORAL MASTOID MASTOIDS IAC SINUS SINUSES PNS NNH ORBIT ORBITS ORBITA FACE FACIAL MAXILLOFACIAL", ()),
        ("ANGIO ANGIOGRAPHY ANGIOGRAPHIE CTA", set(PRESETS) - {"ct-brain"}),
        ("LUNG LUNGS PULMONARY", ("ct-lung",)),
        ("MEDIASTINUM MEDIASTINAL", ("ct-mediastinum",)),
        ("LIVER HEPATIC", ("ct-liver",)),
        ("CHEST THORAX", ("ct-lung", "ct-mediastinum")),
        ("ABDOMEN ABDOMINAL ABDOMENPELVIS ABDPELV", ("ct-soft", "ct-liver")),
        ("PELVIS PELVIC NECK", ("ct-soft",)),
    )
    for word in words.split()
}
# Siemens (H60s, Br64: sharp from 60 on), Canon (FC30, FC50, FC81), GE and Philips; spaces and signs left out.
_SHARP_KERNEL = re.compile(r"[A-Z]{1,2}([6-9]\d)[A-Z]?\d?|FC(3|5|8)\d|BONE(PLUS)?2?|EDGE|LUNG|Y[A-E]|D|E")
_OF_SHARP_KERNELS = frozenset(("ct-bone", "ct-lung"))
_WIDTH_RATIO = 4


@dataclass(frozen=True)
class IntensityChoice:
    """How the intensities of one image are brought to [0, 1], for the record beside its results.

    Args:
        preset: a name of :data:`PRESETS`, ``"percentile"``, ``"dicom"``, or ``"none"`` for pictures, which are left as
            they are.
        width: width of the window, or None.
        level: level of the window, or None.
        reason: a sentence that says why, without any text of the file.
        warnings: sentences about what may be wrong with it.
        low: the value that became 0, or None before it is known and where it is not one value.
        high: the value that became 1, likewise.
    """

    preset: str
    width: float | None
    level: float | None
    reason: str
    warnings: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    def with_limits(self, low: float | None, high: float | None, *warnings: str) -> IntensityChoice:
        """A copy with the limits filled in and warnings added."""
        return replace(self, low=low, high=high, warnings=(*self.warnings, *warnings))

    def to_dict(self) -> dict[str, Any]:
        """All fields, fit for JSON."""
        return {**asdict(self), "warnings": list(self.warnings)}

    def to_json(self) -> str:
        """All fields as one JSON string, the form in which an image's metadata carry it."""
        return json.dumps(self.to_dict())


def check_preset(name: str) -> str:
    """Return the name of a preset.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESET_NAMES:
        raise ValueError(f"There is no intensity preset {name!r}: choose one of {', '.join(PRESET_NAMES)}.")
    return name


def choose_preset(
    modality: str,
    body_part: str = "",
    descriptions: Iterable[str] = (),
    requested: str = "auto",
    has_voi: bool = False,
    *,
    picture: bool = False,
    hounsfield: bool = True,
    kernels: Iterable[str] = (),
    own_windows: Iterable[Window] = (),
) -> IntensityChoice:
    """Choose how to scale one image or series.

    What was requested wins. Else, by modality: CT gets the window that body part, descriptions and kernel call for, if
    they call for exactly one, otherwise ``ct-soft`` with a warning; where the file's own windows contradict that, it
    gets the first of them, with a warning. Radiographs (CR, DX, MG, IO, PX) get the file's own window if there is
    one; all others, and what has no modality, percentiles. Pictures (8-bit colour, ultrasound) are left as they are.

    Args:
        modality: DICOM modality code, or empty when there is none (NIfTI).
        body_part: Body Part Examined.
        descriptions: protocol name and series and study description; they are searched for words, never quoted.
        requested: one of :data:`PRESET_NAMES`.
        has_voi: the file has a usable window or VOI LUT of its own.
        picture: the image is made for the eye already.
        hounsfield: the values of a CT are Hounsfield units, as far as the file tells.
        kernels: convolution kernels of a CT.
        own_windows: all windows that a CT states.

    Raises:
        ValueError: an unknown preset, or ``"dicom"`` for an image without a window of its own.
    """
    check_preset(requested)
    if picture:
        warning = f"The intensity preset {requested} does not apply to pictures and was not used."
        return IntensityChoice(
            "none", None, None, "Pictures are used as they are.", () if requested == "auto" else (warning,)
        )
    if requested == "dicom" and not has_voi:
        raise ValueError(
            "The intensity preset 'dicom' needs a usable window in the file and there is none: use 'auto' or "
            "'percentile'."
        )
    if requested in PRESETS:
        warnings = []
        if modality not in ("", "CT"):
            warnings.append(f"The window {requested} is meant for CT, but the image is of another modality.")
        elif not hounsfield:
            warnings.append(
                f"The window {requested} is in Hounsfield units, but the file does not say that its values are."
            )
        return IntensityChoice(requested, *PRESETS[requested], "The preset was requested.", tuple(warnings))
    if requested != "auto":
        return IntensityChoice(requested, None, None, "The preset was requested.")

    if modality == "CT":
        return _choose_window(f"{body_part} {' '.join(descriptions)}", hounsfield, kernels, list(own_windows), has_voi)
    if modality in RADIOGRAPHS and has_voi:
        return IntensityChoice("dicom", None, None, "Radiographs are shown in the window of the file.")
    warnings = []
    if modality == "PT":
        warnings.append("PET values are scaled by percentiles and not converted to uptake values (SUV).")
    reason = "Percentiles of the whole image, since its modality has no fixed scale."
    return IntensityChoice("percentile", None, None, reason, tuple(warnings))


def _choose_window(
    text: str, hounsfield: bool, kernels: Iterable[str], own: Sequence[Window], has_voi: bool
) -> IntensityChoice:
    if not hounsfield:
        reason = "Percentiles, since the file does not tell that the values of this CT are Hounsfield units."
        return IntensityChoice("percentile", None, None, reason, ("CT without Hounsfield units: no window applies.",))
    named = [_KEYWORDS[word] for word in re.split(r"[^A-Z0-9]+", text.upper()) if word in _KEYWORDS]
    suited = frozenset.intersection(*named) if named else frozenset()
    sharp = any(_SHARP_KERNEL.fullmatch(re.sub(r"[^A-Z0-9]", "", kernel.upper())) for kernel in kernels)
    if suited and sharp:
        suited &= _OF_SHARP_KERNELS
    # The abdomen alone leaves the choice between two, of which the wider one is customary.
    chosen = next(iter(suited)) if len(suited) == 1 else "ct-soft" if suited == {"ct-soft", "ct-liver"} else None
    likely = chosen or "ct-soft"
    contradicted = bool(own) and not any(_resemble(PRESETS[likely], window) for window in own)
    advice = f"give a preset ({', '.join(PRESETS)}) if"
    if contradicted and has_voi and not (chosen and sharp):
        reason = "The window of the file, since body part, descriptions and kernel call for another one or for none."
        return IntensityChoice("dicom", None, None, reason, (f"{reason[:-1]}: {advice} it does not suit.",))
    if chosen:
        doubt = f"The file's own windows differ from {chosen}, which its texts call for: {advice} it does not suit."
        reason = "The window that body part and descriptions call for."
        return IntensityChoice(chosen, *PRESETS[chosen], reason, (doubt,) if contradicted else ())
    reason = "The default window for CT, since body part, descriptions and kernel do not name one region."
    warning = f"The region is not known or not one: {advice} ct-soft does not suit."
    return IntensityChoice("ct-soft", *PRESETS["ct-soft"], reason, (warning,))


def _resemble(one: Window, other: Window) -> bool:
    """Whether two windows can be meant for the same tissue."""
    narrow, wide = sorted((one, other))
    return wide.width <= _WIDTH_RATIO * narrow.width and abs(one.level - other.level) <= narrow.width / 2


def window_limits(width: float, level: float) -> tuple[float, float]:
    """The values at which the linear window of DICOM PS3.3 C.11.2.1.2.1 reaches 0 and 1.

    The level lies half a unit off the middle and the width counts the values inside, both ends included: for integers,
    a window of width 256 and level 128 runs from 0 to 255. A width of 1 is a step.

    Raises:
        ValueError: the width is below 1.
    """
    if not width >= 1:
        raise ValueError(f"The width of a linear window must be at least 1, got {width}.")
    return level - 0.5 - (width - 1) / 2, level - 0.5 + (width - 1) / 2
