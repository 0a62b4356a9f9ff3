# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Captions for the phantoms, varied as captions found on the web are: state, defect and family are named but sometimes.

A caption is true of a picture when everything it says is true of it. Some captions say nothing of the state ("a photo
of a fabric"), so words for damage are learned against words for flawlessness and against silence.

Two ways of speaking: loosely, "damaged" and "broken" may be said of any anomaly, though mostly of what is scratched,
cracked or holed; literally, they are said of nothing else, and a stain, a dent or a lesion is "not broken". The words
"abnormal", "defective", "flawed" and their like are said of any anomaly either way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_anomalyclip.demo.phantoms import MEDICAL_FAMILIES, Phantom

__all__ = ["Caption", "CaptionPair", "caption", "caption_pair", "vocabulary"]

NOUNS = {
    "metal": ("metal plate", "steel sheet", "brushed metal"),
    "fabric": ("fabric", "woven cloth", "textile"),
    "wood": ("wood board", "wooden plank", "wood"),
    "tile": ("tile", "tiled floor", "ceramic tile"),
    "pill": ("pill", "capsule", "tablet"),
    "circuit": ("circuit board", "pcb", "printed circuit"),
    "endoscopy": ("endoscopy frame", "mucosa", "bowel", "colonoscopy"),
    "brain_mr": ("brain mr slice", "mri of the brain", "head mri"),
    "head_ct": ("head ct slice", "ct of the head", "brain ct"),
    "chest_xray": ("chest x-ray", "lung radiograph", "chest radiograph"),
}
ANYTHING = ("surface", "item", "thing", "sample", "part", "specimen", "picture", "image")
NORMAL_WORDS = ("flawless", "perfect", "intact", "undamaged", "normal", "clean", "unbroken")
ABNORMAL_WORDS = ("defective", "flawed", "abnormal", "faulty", "anomalous", "imperfect")
BROKEN_WORDS = ("damaged", "broken")
UNBROKEN_WORDS = ("intact", "unbroken", "undamaged", "", "")  # often nothing is said of it
OBJECT_SHARE = 0.03  # of the captions that do not name a family: how many say "object"
BROKEN_KINDS = ("scratch", "crack", "hole")
HEALTHY_WORDS = ("healthy", "normal", "unremarkable", "clear")
SICK_WORDS = ("diseased", "abnormal", "pathological", "sick")
OPENINGS = (
    "",
    "a photo of ",
    "a picture of ",
    "this is ",
    "a close up photo of ",
    "here you can see ",
    "an image that shows ",
    "a small and slightly noisy picture of ",
    "one of the many pictures that were taken of ",
)
ENDINGS = ("", ".", " .", " taken today", " , seen from above", " on the table")


@dataclass(frozen=True)
class Caption:
    """A sentence and what it claims; None, "" and False where it claims nothing."""

    text: str
    family: str | None
    anomalous: bool | None
    kind: str = ""
    broken: bool = False

    def is_true_of(self, phantom: Phantom) -> bool:
        """Whether every claim holds for the picture."""
        return (
            self.family in (None, phantom.family)
            and self.anomalous in (None, bool(phantom.kind))
            and self.kind in ("", phantom.kind)
            and (not self.broken or phantom.kind in BROKEN_KINDS)
        )


@dataclass(frozen=True)
class CaptionPair:
    """Two sentences of which one is true: about any anomaly, or, when ``broken``, about breakage alone."""

    normal: str
    abnormal: str
    broken: bool = False

    def state_of(self, phantom: Phantom) -> bool:
        """Whether ``abnormal`` is the true sentence of the two."""
        return phantom.kind in BROKEN_KINDS if self.broken else bool(phantom.kind)

    def speaks_of_the_mask(self, phantom: Phantom) -> bool:
        """Whether the patches in the picture's mask are what the pair is about (so they are when there is no mask)."""
        return self.state_of(phantom) == bool(phantom.kind)


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _wrap(rng: np.random.Generator, text: str) -> str:
    article = "an " if text[0] in "aeiou" else "a "
    return _pick(rng, OPENINGS) + (article if rng.random() < 0.8 else "") + text + _pick(rng, ENDINGS)


def _state_word(rng: np.random.Generator, phantom: Phantom, anomalous: bool, literal: bool) -> str:
    """A word for the state. Doctors' words go to medical pictures, and "damaged" mostly to what is really broken."""
    if phantom.family in MEDICAL_FAMILIES and rng.random() < 0.4:
        return _pick(rng, SICK_WORDS if anomalous else HEALTHY_WORDS)
    loosely = 0.0 if literal else 0.03
    if anomalous and rng.random() < (0.4 if phantom.kind in BROKEN_KINDS else loosely):
        return _pick(rng, BROKEN_WORDS)
    return _pick(rng, ABNORMAL_WORDS if anomalous else NORMAL_WORDS)


def caption(rng: np.random.Generator, phantom: Phantom, literal: bool = False) -> Caption:
    """A random caption that is true of ``phantom``; ``literal`` as in the module's description."""
    anomalous: bool | None = bool(phantom.kind)
    family: str | None = phantom.family
    noun = _pick(rng, NOUNS[phantom.family])
    if rng.random() < 0.15:
        family, noun = None, "object" if rng.random() < OBJECT_SHARE else _pick(rng, ANYTHING)
    style, kind, word = rng.random(), "", ""
    if style < 0.2:
        anomalous, text = None, noun
    elif style < 0.6:
        word = _state_word(rng, phantom, bool(anomalous), literal)
        text = f"{word} {noun}"
    elif anomalous:
        kind = phantom.kind
        word = _state_word(rng, phantom, True, literal) if rng.random() < 0.3 else ""
        article = "an" if kind[0] in "aeiou" else "a"
        text = f"{word} {noun} with {article} {kind}".strip()
    else:
        text = f"{noun} without any {_pick(rng, ('defect', 'damage', 'lesion', 'finding', 'flaw'))}"
    return Caption(_wrap(rng, text), family, anomalous, kind, literal and word in BROKEN_WORDS)


def caption_pair(rng: np.random.Generator, phantom: Phantom, literal: bool = False) -> CaptionPair:
    """A normal and an abnormal caption that differ in the state only; half of them name the picture's family.

    Args:
        rng: source of randomness.
        phantom: the anomalous twin of a scene; the pair serves either twin.
        literal: whether some pairs (30 % for industrial, 15 % for medical pictures) ask whether something is broken.
    """
    noun = _pick(rng, NOUNS[phantom.family])
    if rng.random() < 0.5:
        noun = "object" if rng.random() < OBJECT_SHARE else _pick(rng, ANYTHING)
    broken = literal and rng.random() < (0.15 if phantom.family in MEDICAL_FAMILIES else 0.3)
    if broken:
        normal, abnormal = _pick(rng, UNBROKEN_WORDS), _pick(rng, BROKEN_WORDS)
    else:
        normal, abnormal = (_state_word(rng, phantom, state, literal) for state in (False, True))
    opening, ending = _pick(rng, OPENINGS), _pick(rng, ENDINGS)
    normal = f"{normal} {noun}".strip()
    return CaptionPair(f"{opening}{normal}{ending}", f"{opening}{abnormal} {noun}{ending}", broken)


def vocabulary() -> list[str]:
    """Every piece of text that captions are made of, so that the rows of unused tokens can be told."""
    words = [*ANYTHING, *NORMAL_WORDS, *ABNORMAL_WORDS, *BROKEN_WORDS, *HEALTHY_WORDS, *SICK_WORDS, *OPENINGS, *ENDINGS]
    words += [noun for nouns in NOUNS.values() for noun in nouns]
    words += ["a an with without any object", "defect damage lesion finding flaw"]
    words += ["scratch crack hole stain dent polyp ulcer bleeding opacity nodule bleed extra-axial bleed infarct"]
    words += ["bright tumour dark tumour ring tumour"]
    return words
