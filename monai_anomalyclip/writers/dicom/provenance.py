# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which network made the results, with which settings: what records and DICOM objects say of it, and in which codes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import highdicom as hd
import monai
import torch
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

import monai_anomalyclip
from monai_anomalyclip.data.dicom.series import DicomSeries
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest
from monai_anomalyclip.writers.record import MadeWith, Model

__all__ = [
    "ANOMALY_MAP",
    "ANOMALY_SCORE",
    "ANOMALY_THRESHOLD",
    "DEFAULT_CATEGORY",
    "DEFAULT_TYPE",
    "NO_UNITS",
    "PRIVATE_SCHEME",
    "Provenance",
    "derived_uid",
    "describe_model",
    "parse_code",
    "private_scheme_item",
    "provenance_of",
    "result_uid",
    "series_description",
    "uid_context",
]

_MANUFACTURER = "monai_anomalyclip authors"
_MODEL = "monai_anomalyclip (research)"
_FAMILY = codes.DCM.ArtificialIntelligence  # 123110
_LARGEST_NUMBER = 2**31 - 1  # of Series Number, an integer string
_LONGEST_PARAMETERS = 10240  # of Algorithm Parameters, a long text
_SERIES_NUMBER_OFFSETS = {
    "segmentation": 1000,
    "report": 2000,
    "parametric map": 3000,
    "secondary capture": 4000,
    "probability segmentation": 5000,
    "levels segmentation": 6000,
}


def _versions() -> tuple[str, ...]:
    return (
        f"monai_anomalyclip {monai_anomalyclip.__version__}",
        f"torch {torch.__version__}",
        f"monai {monai.__version__}",
    )


@dataclass(frozen=True)
class Provenance:
    """Algorithm, settings and software behind an object, as the DICOM attributes that carry them.

    Args:
        prompts_sha256: 64 hexadecimal digits, the SHA-256 of the file of learned prompts.
        backbone: name of the CLIP model, such as ``"ViT-L-14-336"``.
        parameters: further settings by name; nothing of the input belongs here (no paths, no header text).
        algorithm_name: Algorithm Name.
        algorithm_version: Algorithm Version.
        software_versions: each at most 64 characters; by default ours, torch's and MONAI's.
        deterministic: derive all UIDs from source series and settings, so that a second run gives the same ones; for
            tests and audits. An archive refuses, or worse merges, two different objects with one UID: leave it off
            elsewhere.
        context: text that such UIDs depend on alone, and that is told nowhere (see :func:`result_uid`); "": they depend
            on series, stack and configuration.
        caution: what must be said of the model beside its scores.

    Raises:
        ValueError: a text is empty, too long for its attribute, or not printable ASCII; not a SHA-256.
    """

    prompts_sha256: str
    backbone: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    algorithm_name: str = "AnomalyCLIP"
    algorithm_version: str = monai_anomalyclip.__version__
    software_versions: tuple[str, ...] = field(default_factory=_versions)
    deterministic: bool = False
    context: str = ""
    caution: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.prompts_sha256):
            raise ValueError(f"prompts_sha256 must be 64 lower-case hexadecimal digits, got {self.prompts_sha256!r}.")
        for text in (self.backbone, self.algorithm_name, self.algorithm_version, *self.software_versions):
            if not (0 < len(text) <= 64 and text.isascii() and text.isprintable() and "\\" not in text):
                raise ValueError(
                    f"Names and versions must be 1 to 64 printable ASCII characters without backslash, got {text!r}."
                )
        if not self.software_versions:
            raise ValueError("At least one software version is needed, got none.")
        length = sum(len(f"{name}={value},") for name, value in self._settings.items())
        if length > _LONGEST_PARAMETERS:
            raise ValueError(
                f"The parameters take {length} characters, DICOM allows {_LONGEST_PARAMETERS}: give fewer."
            )

    @cached_property
    def configuration_hash(self) -> str:
        """SHA-256 of all fields but `deterministic`, `context` and `caution`, as hexadecimal digits."""
        fields: list[Any] = [self.algorithm_name, self.algorithm_version, self.software_versions, self._settings]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def equipment(self) -> dict[str, Any]:
        """Manufacturer, model, serial number and software versions, as highdicom's classes take them."""
        return {
            "manufacturer": _MANUFACTURER,
            "manufacturer_model_name": _MODEL,
            "device_serial_number": self.configuration_hash[:16],
            "software_versions": self.software_versions,
        }

    def algorithm_identification(self) -> hd.AlgorithmIdentificationSequence:
        """Algorithm Identification macro (DICOM PS3.3 section 10.16), for images."""
        return hd.AlgorithmIdentificationSequence(
            name=self.algorithm_name,
            family=_FAMILY,
            version=self.algorithm_version,
            source=_MANUFACTURER,
            parameters=self._settings,
        )

    def report_algorithm(self) -> hd.sr.AlgorithmIdentification:
        """Algorithm Identification template (TID 4019), for structured reports."""
        return hd.sr.AlgorithmIdentification(
            name=self.algorithm_name,
            version=self.algorithm_version,
            parameters=[f"{name}={value}" for name, value in self._settings.items()],
            family=_FAMILY,
            manufacturer=_MANUFACTURER,
        )

    def contributing_equipment(self) -> hd.ContributingEquipment:
        """Item of the Contributing Equipment Sequence that says that we processed the images."""
        return hd.ContributingEquipment(
            purpose_of_reference=codes.DCM.ProcessingEquipment,  # 109102
            contribution_description=f"Anomaly detection. {monai_anomalyclip.RESEARCH_USE_ONLY}",
            **self.equipment,
        )

    def device_uid(self) -> str:
        """UID of this software in this configuration; always the same."""
        return derived_uid(self.configuration_hash)

    def uid(self, series: DicomSeries, what: str) -> str:
        """A UID for one of the objects made from a stack of frames.

        Args:
            series: the source.
            what: the UID's purpose, such as ``"segmentation instance"``.

        Returns:
            UUID-derived UID (2.25., DICOM PS3.5 section B.2): random, or if `deterministic` from the context and the
            purpose.
        """
        if not self.deterministic:
            return f"2.25.{uuid.uuid4().int}"
        return result_uid(self.context or "\n".join((series.group, series.key, self.configuration_hash)), what)

    def identity(self, series: DicomSeries, kind: str) -> dict[str, Any]:
        """UIDs, numbers and description of a new series with one instance, as highdicom's classes take them.

        Args:
            series: the source.
            kind: ``"segmentation"``, ``"report"``, ``"parametric map"``, ``"secondary capture"``, and as in
                ``"probability segmentation"``.
        """
        return {
            "series_instance_uid": self.uid(series, f"{kind} series"),
            "series_number": _series_number(series, kind),
            "sop_instance_uid": self.uid(series, f"{kind} instance"),
            "instance_number": 1,
            "series_description": series_description(kind),
        }

    def name_dimensions(self, result: Dataset, series: DicomSeries, kind: str) -> None:
        """Give the Dimension Organization of a multi-frame image, which highdicom makes up, one of our UIDs."""
        uid = self.uid(series, f"{kind} dimensions")
        for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
            item.DimensionOrganizationUID = uid

    @property
    def _settings(self) -> dict[str, str]:
        settings = {"backbone": self.backbone, "prompts_sha256": self.prompts_sha256, **self.parameters}
        return {_ascii(name): _ascii(value) for name, value in settings.items()}


def series_description(kind: str) -> str:
    """Series Description of our objects; at most 64 characters, nothing of the source."""
    return f"Anomaly detection: {kind} (research)"


def _ascii(value: object) -> str:
    # The objects carry the source's character set, so our own text keeps to what all sets share.
    printable = "".join(character if character.isprintable() else " " for character in str(value))
    return printable.encode("ascii", "replace").decode().replace("\\", "/")


def result_uid(context: str, what: str) -> str:
    """UID of one of the objects that a context gives, see :func:`uid_context`.

    Args:
        context: what the objects of a source have in common.
        what: the UID's purpose, such as ``"report instance"``.
    """
    return derived_uid(f"{what}\n{context}")


def derived_uid(text: str) -> str:
    """The UID that always belongs to a text: a name-based UUID (DICOM PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"


def _series_number(series: DicomSeries, kind: str) -> int:
    offset = _SERIES_NUMBER_OFFSETS[kind]
    try:
        number = offset + int(series.common("SeriesNumber") or 0)
    except (TypeError, ValueError):  # several values, or no number
        return offset
    return number if 1 <= number <= _LARGEST_NUMBER else offset


def describe_model(network: Any, prompts: str | os.PathLike[str] | None) -> Model:
    """Describe a network.

    Args:
        network: with ``backbone_name``, ``backbone_sha256`` and ``settings``, such as :class:`AnomalyCLIP`.
        prompts: file of the tuned prompts; None, or a file that does not exist, for a method that needs none.
    """
    settings = {key: value for key, value in network.settings.items() if key not in ("model_name", "pretrained")}
    words = {kind: tuple(settings.pop(f"{kind}_words", ())) for kind in ("normal", "abnormal")}
    return Model(
        backbone=str(network.backbone_name),
        backbone_sha256=network.backbone_sha256,
        prompts_sha256=None if prompts is None else prompts_digest(prompts),
        words=words,
        settings={"method": type(network).__name__, **settings},
    )


# Which other kinds of files there are changes none of the DICOM objects.
_OTHER_SETTINGS = ("outputs", "map_precision", "sheared_nifti", "deterministic_uids")


def uid_context(made: MadeWith, group: str, source_digest: str, ordinal: int = 0) -> str:
    """What deterministic UIDs of the DICOM objects of a stack depend on.

    The model, the settings and the set of source images, as their SOP Instance UIDs tell it, not the bytes of their
    files: an original and its transcoded copy give the same. That it can be told without the images is how an archive
    is asked whether it holds the results already.

    Args:
        made: what results are made with.
        group: of study and series, see :class:`~monai_anomalyclip.data.dicom.DicomSeries`.
        source_digest: of all SOP Instance UIDs of the series.
        ordinal: place of the stack among those of its series that are scored, from 0.
    """
    settings = {name: value for name, value in made.settings.items() if name not in _OTHER_SETTINGS}
    fingerprint = [made.model.model_dump(), settings, made.tool.version]
    return json.dumps([fingerprint, group, source_digest, ordinal], sort_keys=True)


def provenance_of(
    model: Model, settings: Mapping[str, Any], deterministic: bool = False, context: str = ""
) -> Provenance:
    """What DICOM objects say of the model.

    Args:
        model: from :func:`describe_model`.
        settings: of the run, such as threshold and preset.
        deterministic: see :class:`Provenance`.
        context: likewise.
    """
    untuned = hashlib.sha256(json.dumps(model.settings, sort_keys=True, default=str).encode()).hexdigest()
    return Provenance(
        # Without tuned prompts the method's settings are all there is to tell it by.
        prompts_sha256=model.prompts_sha256 or untuned,
        backbone=model.backbone,
        parameters=settings,
        algorithm_name=str(model.settings["method"]),
        deterministic=deterministic,
        context=context,
        caution=model.caution,
    )


DEFAULT_CATEGORY = "49755003^SCT^Morphologically Abnormal Structure"
DEFAULT_TYPE = "52988006^SCT^Lesion"

PRIVATE_SCHEME = "99ANOMALYCLIP"  # "99" marks a private scheme (DICOM PS3.16 section 8.2)

ANOMALY_SCORE = CodedConcept("anomaly-score", PRIVATE_SCHEME, "Anomaly score")
ANOMALY_THRESHOLD = CodedConcept("threshold", PRIVATE_SCHEME, "Anomaly score threshold")
ANOMALY_MAP = CodedConcept("anomaly-map", PRIVATE_SCHEME, "Anomaly map value")
NO_UNITS = CodedConcept("1", "UCUM", "no units")

_LIMITS = {"code": 16, "scheme": 16, "meaning": 64}  # SH, SH, LO


def parse_code(text: str) -> CodedConcept:
    """Make a coded concept of ``"code^scheme^meaning"``, such as ``"52988006^SCT^Lesion"``.

    Args:
        text: three parts joined by ``^``: Code Value (at most 16 characters), Coding Scheme Designator (16) and Code
            Meaning (64), in printable ASCII without backslash (DICOM PS3.3 section 8).

    Raises:
        ValueError: not three parts, or a part is empty, too long or holds other characters.
    """
    parts = [part.strip() for part in text.split("^")]
    if len(parts) != 3:
        raise ValueError(f"A code must read 'code^scheme^meaning', such as {DEFAULT_TYPE!r}, got {text!r}.")
    for (name, limit), part in zip(_LIMITS.items(), parts, strict=True):
        if not (0 < len(part) <= limit and part.isascii() and part.isprintable() and "\\" not in part):
            raise ValueError(
                f"The {name} of a coded concept must be 1 to {limit} printable ASCII characters without backslash, "
                f"got {part!r} in {text!r}."
            )
    return CodedConcept(*parts)


def private_scheme_item() -> CodingSchemeIdentificationItem:
    """What an object that uses our private codes says about their scheme."""
    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="Private codes of monai_anomalyclip",
        responsible_organization="monai_anomalyclip authors",
    )
