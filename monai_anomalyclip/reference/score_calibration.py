# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AnomalyCLIP's own score among those of normal inputs, kept beside the prompts that it was measured with.

What is compared is the margin of the logits, abnormal less normal: the probability that is made from it rounds to 1
for many images, and equal scores cannot be ranked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import secrets
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest

if TYPE_CHECKING:
    from monai_anomalyclip.reference.conformal import ConformalScores
    from monai_anomalyclip.reference.normal_facts import NormalFacts

__all__ = [
    "CompareWithNormalsD",
    "CompareWithNormalsDict",
    "CompareWithNormalsd",
    "NormalScores",
    "ScoredNormal",
    "normal_scores",
    "normals_path",
]

_FORMAT = "monai_anomalyclip.normal_scores"
_MOST_BYTES = 64 * 2**20
_SLICES = 1.5  # times as many slices as any normal volume, or as few

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredNormal:
    """A normal input.

    Attributes:
        score: margin of its most suspicious slice.
        content: SHA-256 of its values as 8 bit.
        group: keyed hash of the patient, or the content where no patient is known.
        preset: how its intensities were scaled.
        kind: "frame", "volume" or "cine".
        modality: DICOM's code, or "".
        slices: how many it has.
        size: rows and columns, in the order of the tensor.
        brightness: mean gray value, in [0, 1].
    """

    score: float
    content: str
    group: str
    preset: str
    kind: str
    modality: str
    slices: int
    size: tuple[int, int]
    brightness: float


class NormalScores:
    """Margins of normal inputs, among which those of others get a p-value.

    Compared are inputs of one kind (picture, volume, film) that were scaled by one intensity preset; several kinds
    can be kept together.

    Args:
        model: digest of network and prompts (:func:`model_digest`).
        salt: of the keyed hashes; by default a new one.

    Example::

        predictor.calibrate_on("normals")  # writes models/model.normals.json
        predictor("frame.png").p_value
    """

    def __init__(self, model: str, salt: bytes | None = None, normals: Sequence[ScoredNormal] = ()) -> None:
        self.model = model
        self.salt = secrets.token_bytes(32) if salt is None else salt
        self.normals = list(normals)

    def add(self, image: MetaTensor, margins: Tensor, group: str | None = None) -> bool:
        """Take a normal input in.

        Args:
            image: (C, H, W) or (C, X, Y, Z) in [0, 1] or uint8, as a reader gives it.
            margins: of its slices.
            group: whose it is, such as the patient; None when it stands alone.

        Returns:
            whether it is new: the same content is taken once.

        Raises:
            ValueError: a margin is not finite.
        """
        found = self._scored(image, margins, group)
        if not math.isfinite(found.score):
            raise ValueError("The network gave margins that are not finite.")
        if any(one.content == found.content for one in self.normals):
            return False
        self.normals.append(found)
        return True

    def compare(self, image: MetaTensor, margins: Tensor) -> dict[str, Any]:
        """What is said of an input, in the form of an inferer's output for a batch of one.

        Args:
            image: as for :meth:`add`.
            margins: of its slices.

        Returns:
            ``p_value`` (1, 1), NaN where there is none; ``compared``, a list of one JSON text, for the record; and
            ``doubts``, a list of one text, a sentence a line.
        """
        from monai_anomalyclip.reference.conformal import ConformalScores  # most runs compare with no normals

        patient = str(image.meta.get("patient") or "") if isinstance(image, MetaTensor) else ""
        found = self._scored(image, margins, f"patient {patient}" if patient else None)
        alike = [one for one in self.normals if (one.kind, one.preset) == (found.kind, found.preset)]
        own = {found.group, *(one.group for one in alike if one.content == found.content)}
        others = [one for one in alike if one.group not in own]
        if not others:
            kinds = ", ".join(sorted({f"{one.kind}s with {one.preset or 'no preset'}" for one in self.normals}))
            return _as_output(
                None, {"score": found.score, "k": 0},
                [f"AnomalyCLIP's score has no p-value: this is a {found.kind} with the intensity preset "
                 f"{found.preset or 'none'}, and the normals of the calibration are {kinds}"
                 f"{' of the same patient' if alike else ''}."],
            )  # fmt: skip
        calibration = ConformalScores([one.score for one in others], [one.group for one in others], unit=_unit(others))
        p = calibration.p_value(found.score)
        numbers = {"score": found.score, "p_value": p, "k": calibration.k, "smallest_p": calibration.smallest_p}
        says = {"says": calibration.sentence(p)}
        return _as_output(p, {**numbers, **says}, self._doubts(found, others, alike, calibration, p))

    def digest(self) -> str:
        """SHA-256 of all that p-values depend on, whatever the order of the normals."""
        known = sorted((one.content, one.score, one.preset, one.kind) for one in self.normals)
        return hashlib.sha256(json.dumps([self.model, known]).encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, without names; an existing file is replaced.

        Raises:
            OSError: the folder cannot be written to.
        """
        content = {
            "format": _FORMAT,
            "model": self.model,
            "salt": self.salt.hex(),
            "normals": [asdict(one) for one in self.normals],
        }
        with replaced_when_complete(Path(path)) as unfinished:
            unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NormalScores:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is something else, or damaged.
        """
        file = Path(path)
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise ValueError("too large")
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise KeyError(content["format"])
            normals = [_checked(one) for one in content["normals"]]
            return cls(str(content["model"]), bytes.fromhex(content["salt"]), normals)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"'{file.name}' holds no scores of normals: remove it and calibrate again.") from error

    def _scored(self, image: MetaTensor, margins: Tensor, group: str | None) -> ScoredNormal:
        from monai_anomalyclip.reference.normal_facts import group_key, preset_of

        values = image.as_tensor() if isinstance(image, MetaTensor) else image
        bytes_ = values if values.dtype == torch.uint8 else (values.float() * 255).round().to(torch.uint8)
        meta = image.meta if isinstance(image, MetaTensor) else {}
        digest = hashlib.sha256(repr(tuple(values.shape)).encode())
        digest.update(bytes_.cpu().contiguous().numpy().tobytes())
        flat = torch.as_tensor(margins).flatten()
        return ScoredNormal(
            score=float(flat.max()),
            content=digest.hexdigest(),
            group=digest.hexdigest() if group is None else group_key(group, self.salt).hex(),
            preset=preset_of(image),
            kind=str(meta.get("kind") or ("frame" if values.ndim == 3 else "volume")),
            modality=str(meta.get("modality") or ""),
            slices=len(flat),
            size=(int(values.shape[1]), int(values.shape[2])),
            brightness=float(bytes_.float().mean()) / 255,
        )

    def _doubts(
        self,
        found: ScoredNormal,
        others: Sequence[ScoredNormal],
        alike: Sequence[ScoredNormal],
        calibration: ConformalScores,
        p: float | None,
    ) -> list[str]:
        from monai_anomalyclip.reference.conformal import RECOMMENDED_NORMALS
        from monai_anomalyclip.reference.normal_facts import FLOOR, doubts_about, few_normals

        doubts = []
        if any(one.content == found.content for one in alike):
            doubts.append("This input is one of the normals of the calibration: it was compared with the others only.")
        elif len(others) < len(alike):
            doubts.append("The calibration holds inputs of this patient: it was compared with those of others only.")
        facts = [_facts(one) for one in others]
        doubts += doubts_about(_facts(found), facts, 0.0, None).values()
        if found.modality and (known := {one.modality for one in others} - {""}) and found.modality not in known:
            doubts.append(f"Its modality is {found.modality}, that of the normals {', '.join(sorted(known))}.")
        counts = [one.slices for one in others]
        if not min(counts) / _SLICES <= found.slices <= max(counts) * _SLICES:
            doubts.append(
                f"It has {found.slices} slices and the normals {min(counts)} to {max(counts)}: the highest of many "
                "slices is higher than the highest of a few."
            )
        if calibration.k < RECOMMENDED_NORMALS:
            doubts.append(few_normals(calibration.k))
        if p is not None and math.isclose(p, calibration.smallest_p):
            doubts.append(FLOOR.format(k=calibration.k))
        return doubts


def _checked(one: Mapping[str, Any]) -> ScoredNormal:
    rows, columns = one["size"]
    found = ScoredNormal(**{**one, "size": (int(rows), int(columns))})
    texts = (found.content, found.group, found.preset, found.kind, found.modality)
    numbers = [float(found.score), float(found.brightness), float(found.slices)]
    if not all(isinstance(text, str) for text in texts) or not all(math.isfinite(number) for number in numbers):
        raise ValueError(one)
    if min(found.size) < 1 or found.slices < 1:
        raise ValueError(one)
    return replace(found, score=numbers[0], brightness=numbers[1], slices=int(found.slices))


def _facts(one: ScoredNormal) -> NormalFacts:
    from monai_anomalyclip.reference.normal_facts import NormalFacts

    return NormalFacts(b"", b"", one.size, one.brightness, torch.empty(0))


def _unit(normals: Sequence[ScoredNormal]) -> str:
    several = len({one.group for one in normals}) < len(normals)
    kinds = {"frame": "normal images", "volume": "normal volumes", "cine": "normal films"}
    return "normal patients" if several else kinds.get(normals[0].kind, "normal inputs")


def _as_output(p: float | None, numbers: Mapping[str, Any], sentences: Sequence[str]) -> dict[str, Any]:
    return {
        "p_value": torch.tensor([[math.nan if p is None else p]]),
        "compared": [json.dumps([{"method": "anomalyclip", **numbers}])],
        "doubts": ["\n".join(sentences)],
    }


def normals_path(prompts: str | os.PathLike[str]) -> Path:
    """Where the scores of normals of a prompts' file lie: ``models/model.pt`` has ``models/model.normals.json``."""
    return Path(prompts).with_suffix(".normals.json")


def model_digest(network: Any, prompts: str | os.PathLike[str]) -> str:
    """What margins depend on besides the image: weights and settings of the network, and the prompts' tensors."""
    settings = {key: value for key, value in network.settings.items() if key != "pretrained"}  # perhaps a path
    known = [prompts_digest(prompts), network.backbone_sha256, settings]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def normal_scores(prompts: str | os.PathLike[str] | None, network: Any) -> NormalScores | None:
    """The scores of normals that lie beside the prompts; None where there are none, or (with a warning) of others.

    Args:
        prompts: file of the prompts in use; None for a method without.
        network: the network in use.

    Raises:
        ValueError: the file is damaged.
    """
    if prompts is None or not (path := normals_path(prompts)).is_file():
        return None
    found = NormalScores.load(path)
    if found.model != model_digest(network, prompts):
        logger.warning(
            "'%s' was measured with another network or other prompts: its p-values are left out; calibrate again or "
            "remove it.",
            path.name,
        )
        return None
    return found


class CompareWithNormalsd(MapTransform):
    """Give an item ``p_value``, ``compared`` and ``doubts`` of its margins among normal inputs.

    Args:
        keys: key of the margins.
        normals: from :func:`normal_scores`; None changes nothing.
        rule: of fusion with what a reference says (:func:`~monai_anomalyclip.reference.allowed_rule`).
        image_key: key of the image that was scored.
        allow_missing_keys: do not raise when a key is missing, as of a network without margins.

    Example::

        compare = CompareWithNormalsd(normals=normal_scores("models/model.pt", network))
        print(compare(item)["p_value"])
    """

    def __init__(
        self,
        keys: KeysCollection = "anomaly_margin",
        normals: NormalScores | None = None,
        rule: str | None = None,
        image_key: str = "image",
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normals, self.rule, self.image_key = normals, rule, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Compare one item; what another comparison said of it stays, behind."""
        output = dict(data)
        if self.normals is None:
            return output
        for key in self.key_iterator(output):
            found = self.normals.compare(output[self.image_key], output[key])
            output.update(merged(found, output, self.rule).items())
        return output


def merged(found: Mapping[str, Any], earlier: Mapping[Any, Any], rule: str | None = None) -> dict[str, Any]:
    """An item's p-value, comparisons and sentences, those of another way of scoring behind them, and both fused."""
    from monai_anomalyclip.reference.fusion import fused_text

    (text,), (said,) = found["compared"], found["doubts"]
    behind = json.loads(earlier.get("compared") or "[]")
    compared = json.dumps([*json.loads(text), *behind])
    fused = fused_text(compared, rule)
    return {
        **({"fused": fused} if fused else {}),
        "p_value": found["p_value"].flatten(),
        "compared": compared,
        "doubts": "\n".join(filter(None, [said, earlier.get("doubts")])),
    }


CompareWithNormalsD = CompareWithNormalsDict = CompareWithNormalsd
