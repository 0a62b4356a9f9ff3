# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A cohort in the place of a network: each input is compared with all others of its kind, without any normals."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from monai_anomalyclip.atomic_file import make_private_folder, replaced_when_complete
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.reference.encoder_choice import LITE0_NAME, make_encoder
from monai_anomalyclip.reference.memory_bank import image_score
from monai_anomalyclip.reference.mutual_scoring import (
    interval_average,
    nearest_of_volume,
    nearest_patches,
    pooled_slices,
)
from monai_anomalyclip.reference.normal_facts import as_unit_image, preset_of
from monai_anomalyclip.reference.normals import group_of, slices_of
from monai_anomalyclip.reference.reference_network import input_slices
from monai_anomalyclip.transforms.anomaly_map import resize_anomaly_map

__all__ = ["CohortInferer", "CohortNetwork"]

FEWEST = 4
"""Fewer others make no cohort."""

RECOMMENDED = 32

MOST_PARTNERS = 192
"""With more others of its kind an input is compared with so many, the same ones in every run."""

CONSISTENT = (
    "It was compared with the other inputs of this run. What many of them share, also what is abnormal in many, is not "
    "found (consistent anomalies, as CoDeGraph calls them): scores rank the inputs of one run, and mean nothing alone."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Member:
    """An input whose features are in a file."""

    file: Path
    group: str
    kind: str
    preset: str


class CohortNetwork(nn.Module):
    """Patch features of all inputs of a run, on disk, to compare each with the others.

    Inputs are encoded when this object is made; what an earlier run left in the folder is used again. Of each input a
    file of features is kept: treat the folder as you treat the images.

    Args:
        catalogue: the inputs, of one kind if the comparison is to mean anything.
        folder: for the features, made for its owner only.
        encoder: name, see :func:`~monai_anomalyclip.reference.make_encoder`.
        weights: likewise.
        device: where features are computed and compared.
        slice_axis: of volumes.
        grouping: "input", or "folder" where each patient has a folder; images of one patient are not compared.

    Raises:
        ValueError: fewer than five inputs can be read.

    Example::

        network = CohortNetwork(InputCatalogue("studies"), "features")
        print(len(network.members))
    """

    def __init__(
        self,
        catalogue: InputCatalogue,
        folder: str | Path,
        *,
        encoder: str = LITE0_NAME,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        slice_axis: int | str = "auto",
        grouping: str = "input",
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, weights).to(device)
        self.backbone_name = self.encoder.identity.name
        self.backbone_sha256 = self.encoder.identity.digest
        self.folder = Path(folder)
        self.slice_axis = slice_axis
        make_private_folder(self.folder)
        self.members = self._encode_all(catalogue, grouping)
        if len(self.members) <= FEWEST:
            raise ValueError(
                f"{len(self.members)} inputs that can be read make no cohort: at least {FEWEST + 1} are compared with "
                f"each other, {RECOMMENDED} are recommended. With normal images use --normals."
            )
        states = json.dumps([self.encoder.identity.to_json(), slice_axis, *sorted(self.members)])
        self.settings: dict[str, Any] = {"cohort": hashlib.sha256(states.encode()).hexdigest(), "grouping": grouping}

    def partners(self, content: str, kind: str, preset: str, group: str) -> list[_Member]:
        """The members that an input is compared with: those of its kind and preset, but not of its own patient."""
        others = [
            (name, one)
            for name, one in sorted(self.members.items())
            if name != content and one.kind == kind and one.preset == preset and one.group != group
        ]
        others.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())  # by chance, the same in every run
        return [one for _, one in others[:MOST_PARTNERS]]

    def features(self, slices: list[Tensor]) -> Tensor:
        """(Z, P, C) float16 of the slices of an input."""
        return torch.stack([self.encoder(as_unit_image(one)[None])[0].half().cpu() for one in slices])

    def nearest(self, features: Tensor, member: _Member) -> Tensor:
        """(Z, P) distances in [0, 1] to another input, one of which is in memory at a time."""
        device = self.encoder.device
        with safe_open(member.file, "pt") as opened:
            other = opened.get_tensor("features").to(device)
        own = features.to(device)
        if member.kind == "frame":
            found = nearest_patches(own.flatten(0, 1), other.flatten(0, 1)).reshape(own.shape[:2])
        else:
            found = nearest_of_volume(pooled_slices(own), pooled_slices(other))
        return (found / self.encoder.largest_distance).cpu()

    def threshold(self) -> float:
        """None is known without normals: half of the largest distance there can be."""
        return 0.5

    def _encode_all(self, catalogue: InputCatalogue, grouping: str) -> dict[str, _Member]:
        members: dict[str, _Member] = {}
        identity = self.encoder.identity.to_json()
        for name, parts in tqdm(list(_by_input(catalogue)), desc="Encoding the cohort", unit="input"):
            source = parts[0].source
            content = source.state()
            key = hashlib.sha256(f"{identity}{self.slice_axis}{catalogue.options!r}{content}".encode()).hexdigest()
            file = self.folder / f"{key[:32]}.safetensors"
            try:
                members[content] = self._member(file, parts, catalogue, group_of(source, grouping) or content)
            except (OSError, ValueError, RuntimeError) as error:
                logger.warning("%s is no member of the cohort: it cannot be read (%s).", name, type(error).__name__)
        return members

    def _member(self, file: Path, parts: list[Any], catalogue: InputCatalogue, group: str) -> _Member:
        kind = parts[0].source.kind
        if file.is_file():
            with safe_open(file, "pt") as opened:
                return _Member(file, group, kind, str((opened.metadata() or {}).get("preset", "")))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said of the input when it is scored
            slices = [one for part in parts for one in slices_of(part, catalogue.options.preset, self.slice_axis)]
        preset = preset_of(slices[0])
        with replaced_when_complete(file) as unfinished:
            save_file({"features": self.features(slices)}, unfinished, {"preset": preset})
        return _Member(file, group, kind, preset)


class CohortInferer(Inferer):
    """Compare one input with the others of its cohort.

    Args:
        slice_axis: of volumes; the network's.
        progress: accepted for the sake of the other inferers.

    Example::

        output = CohortInferer()(load_input("studies/ct_00")[None], network)
        print(output["anomaly_score"])
    """

    def __init__(self, slice_axis: int | str = "auto", progress: bool = False) -> None:
        super().__init__()
        self.slice_axis, self.progress = slice_axis, progress

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Score one input of the network's catalogue.

        Args:
            inputs: a frame (1, 1 or 3, H, W), or a volume (1, 1 or 3, X, Y, Z), in [0, 1], with the meta ``content``.
            network: a :class:`CohortNetwork`.

        Returns:
            ``anomaly_map`` (1, 1, ...), ``anomaly_score`` (1, n), in [0, 1], and ``doubts``, a list of one text.

        Raises:
            ValueError: too few inputs are of its kind.
        """
        slices, view, meta = input_slices(inputs, self.slice_axis)
        content, kind = str(meta.get("content") or ""), str(meta.get("kind") or "frame")
        own = network.members.get(content)
        preset = preset_of(MetaTensor(slices[0], meta=meta))
        partners = network.partners(content, kind, preset, "" if own is None else own.group)
        if len(partners) < FEWEST:
            raise ValueError(
                f"Only {len(partners)} other inputs of this run are {kind}s with the intensity preset "
                f"{preset or 'none'}: at least {FEWEST} are needed to compare it with."
            )
        features = network.features(list(slices))
        scores = interval_average(network.nearest(features, one) for one in partners)  # (Z, P)
        rows, columns = network.encoder.grid
        maps = resize_anomaly_map(scores.reshape(-1, 1, rows, columns), slices.shape[-2:]).clamp(0, 1)
        anomaly_map: Tensor = (maps[0] if view is None else view.from_slices(maps))[None].contiguous()
        if isinstance(inputs, MetaTensor):
            anomaly_map = MetaTensor(anomaly_map).copy_meta_from(inputs)
        doubts = [CONSISTENT]
        if len(partners) + 1 < RECOMMENDED:
            doubts.append(f"{len(partners) + 1} inputs are few: {RECOMMENDED} are recommended.")
        return {
            "anomaly_map": anomaly_map,
            "anomaly_score": image_score(scores)[None],
            "doubts": ["\n".join(doubts)],
        }


def _by_input(catalogue: InputCatalogue) -> Iterator[tuple[str, list[Any]]]:
    """Name and parts of each input; films have several."""
    parts: dict[str, list[Any]] = {}
    for item in catalogue.items():
        parts.setdefault(item["name"], []).append(item["image"])
    yield from parts.items()
