# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which DICOM objects are no images, and which images are not processed unless they are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data.dicom.attributes import text_of

__all__ = ["EXCLUSION_REASONS", "exclusion_reason", "included_reasons", "is_image_class", "object_kind"]

EXCLUSION_REASONS = ("localizer", "mosaic", "projection", "reformatted", "calculated map", "secondary capture")
"""Why images are not processed unless they are asked for, see :func:`exclusion_reason`."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."

_OBJECTS = {
    "1.2.840.10008.1.3.10": "DICOMDIR",
    _STORAGE + "4.2": "MR spectroscopy",
    _STORAGE + "9": "waveform",
    _STORAGE + "10": "lookup table",
    _STORAGE + "11": "presentation state",
    _STORAGE + "30": "parametric map",
    _STORAGE + "66": "raw data",
    _STORAGE + "66.1": "registration",
    _STORAGE + "66.2": "fiducials",
    _STORAGE + "66.3": "registration",
    _STORAGE + "66.4": "segmentation",
    _STORAGE + "66.5": "segmentation",
    _STORAGE + "66.6": "tractography",
    _STORAGE + "66.7": "segmentation",
    _STORAGE + "66.8": "segmentation",
    _STORAGE + "67": "real world value mapping",
    _STORAGE + "77.1.5.3": "stereometric relationship",
    _STORAGE + "77.1.6": "whole-slide image",
    _STORAGE + "77.1.9": "whole-slide image",
    _STORAGE + "88": "structured report",
    _STORAGE + "88.59": "key object selection",
    _STORAGE + "104": "encapsulated document",
    _STORAGE + "104.1": "encapsulated PDF",
    _STORAGE + "481": "radiotherapy object",
    _STORAGE + "481.2": "RT dose",
    _STORAGE + "481.3": "RT structure set",
    _STORAGE + "481.5": "RT plan",
    _STORAGE + "481.8": "RT plan",
}
"""SOP classes (PS3.4 B.5) that are no pictures; an entry holds for the classes below it too: the longest counts."""

_RT_IMAGES = {_STORAGE + number for number in ("481.1", "481.23", "481.24")}
_SECONDARY_CAPTURE = _STORAGE + "7"

_LOCALIZER = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_PAGE = {"SCREEN", "PROT"}
_PROJECTION = {"MIP", "MINIP", "MNIP", "MAX_IP", "MIN_IP", "MAXIMUM", "MINIMUM", "PROJECTION", "RAYSUM", "VRT", "SSD"}
_REFORMATTED = {"MPR", "CPR", "REFORMATTED", "RESAMPLED", "CURVED"}
_MAP = {"MAP", "PERFUSION", "ADC", "EADC", "FA", "MTT", "TTP", "TMAX", "CBF", "CBV", "RCBF", "RCBV", "RELCBF", "RELCBV"}


def object_kind(header: Dataset) -> str | None:
    """What an object is that is no image, by its SOP class; None for images and for unknown SOP classes."""
    sop_class = text_of(header, "SOPClassUID")
    if sop_class in _RT_IMAGES:
        return None
    while sop_class:
        if sop_class in _OBJECTS:
            return _OBJECTS[sop_class]
        sop_class = sop_class.rpartition(".")[0]
    return None


def included_reasons(include: str | Iterable[str]) -> frozenset[str]:
    """The reasons of exclusion that do not count, of words as people write them: ``"secondary-capture"``.

    Raises:
        ValueError: there is no such reason.
    """
    words = [include] if isinstance(include, str) else list(include)
    reasons = frozenset(re.sub(r"[\s_-]+", " ", word.strip().lower()) for word in words)
    if unknown := sorted(reasons - set(EXCLUSION_REASONS)):
        known = ", ".join(reason.replace(" ", "-") for reason in EXCLUSION_REASONS)
        raise ValueError(f"No series is left out as {unknown[0]!r}: choose of {known}.")
    return reasons


def is_image_class(header: Dataset, keyword: str = "SOPClassUID") -> bool:
    """Whether the SOP class that an attribute names is one of the standard's images, which have pixels."""
    return "Image Storage" in UID(text_of(header, keyword)).name


def exclusion_reason(header: Dataset) -> str | None:
    """Why an image is not processed unless it is asked for, or None.

    By SOP class and Image Type (PS3.3 C.7.6.1.1.2) alone, never by free text:

    - ``"localizer"``: LOCALIZER, SCOUT or TOPOGRAM among the values;
    - ``"mosaic"``: a Siemens mosaic, whose tiles are slices: its position is that of no tile;
    - ``"projection"``: MIP, minIP, volume rendering, whatever the first values say;
    - ``"reformatted"``: MPR, CPR and resampled stacks, if they are DERIVED: they repeat another series;
    - ``"calculated map"``: perfusion maps, ADC, FA, T1 maps and the like, if they are DERIVED: no picture of the kind
      that the network saw;
    - ``"secondary capture"``: screenshots, dose and protocol pages, converted photographs. Gray secondary captures
      with a position in the patient are kept, because tools that rewrite series (SimpleITK) give them this class;
    - ``"result of an earlier run"``: an overlay that this program wrote, by its own mark.

    Values 1 and 2 alone exclude nothing: scanners mark ordinary CT as DERIVED or SECONDARY. Phase images, traces of
    diffusion and subtractions are kept.
    """
    if kind := object_kind(header):
        return kind
    values = _image_type(header)
    words = {word for value in values for word in (*value.split(), *re.split(r"[\s_]+", value))}
    derived = values[:1] == ["DERIVED"]
    if words & _LOCALIZER:
        return "localizer"
    if "MOSAIC" in words:
        return "mosaic"
    if words & _PROJECTION:
        return "projection"
    if derived and words & _REFORMATTED:
        return "reformatted"
    if derived and words & _MAP:
        return "calculated map"
    sop_class = text_of(header, "SOPClassUID")
    if RESEARCH_USE_ONLY in text_of(header, "DerivationDescription"):
        return "result of an earlier run"
    if words & _PAGE or (
        (sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + "."))
        and not _is_gray_and_positioned(header)
    ):
        return "secondary capture"
    return None


def _image_type(header: Dataset) -> list[str]:
    value = header.get("ImageType") or []
    return [str(part).strip().upper() for part in ([value] if isinstance(value, str) else value)]


def _is_gray_and_positioned(header: Dataset) -> bool:
    gray = text_of(header, "PhotometricInterpretation").startswith("MONOCHROME")
    return gray and ("ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header)
