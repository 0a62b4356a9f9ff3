# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A reference in the place of a network, so that bundles, the face and the writers take it as they take AnomalyCLIP."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from torch import Tensor, nn

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.networks.calibrated_thresholds import CalibratedThresholds, thresholds_path
from monai_anomalyclip.reference.comparison import Comparison, volume_p_value
from monai_anomalyclip.reference.encoders import tensors_digest
from monai_anomalyclip.reference.normal_reference import NormalReference

__all__ = ["ReferenceInferer", "ReferenceNetwork", "SideBySideInferer", "input_slices"]


PARTLY_KEPT = (
    "The reference keeps only some slices of its normal volumes, so that a volume as a whole has no p-value: build it "
    "anew, or add to it, with `monai-anomalyclip reference`, which finds what is lacking."
)


class ReferenceNetwork(nn.Module):
    """The encoder and the bank of a reference file, with what records say of a network.

    Args:
        reference: the file, or a reference.
        weights: of the encoder, where they are not those of a package.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the encoder's package is not installed.
        ValueError: the file is damaged or something else.

    Example::

        network = ReferenceNetwork("my_ct.reference").to("cuda")
        ReferenceInferer()(load_input("study")[None], network)["anomaly_score"]
    """

    def __init__(self, reference: str | Path | NormalReference, weights: str | Path | None = None) -> None:
        super().__init__()
        self.path = None if isinstance(reference, NormalReference) else Path(reference)
        if not isinstance(reference, NormalReference):
            reference = NormalReference.load(reference, weights=weights)
        self.reference = reference
        self.encoder = reference.encoder  # as a part of this module it moves with it
        self.backbone_name = reference.identity.name
        self.backbone_sha256 = reference.identity.digest
        bank = reference.bank
        self.settings: dict[str, Any] = {
            **reference.settings,
            "normals": reference.n_images,
            "bank": tensors_digest([bank.whole, bank.thin]),
        }

    @functools.cached_property
    def map_ceiling(self) -> float:
        """Map value that pictures show in their last colour; an outline at 1 % of the normals' pixels is at its half.

        Distances take up a small part of [0, 1]: on a scale to 1 all pictures would be dark.
        """
        return min(2 * self.threshold(0.01), 1.0)

    @property
    def bank_digest(self) -> str:
        """SHA-256 of the bank's tensors: what calibrated thresholds belong to."""
        return str(self.settings["bank"])

    def threshold(self, rate: float) -> float:
        """Map value from which at most this share of the normals' pixels is flagged; 0.5 where they are too few."""
        try:
            return min(self.reference.pixel_threshold(rate), 1.0)
        except ValueError:
            return 0.5

    def resolve_threshold(self, threshold: float | str | Sequence[float | str], rate: float) -> float:
        """Turn a ``threshold`` option into a number.

        Args:
            threshold: a number, or "calibrated": what lies beside the reference's file, measured on labelled images
                with this bank; else :meth:`threshold` at `rate`. A list of one of them is accepted, too.
            rate: share of the normals' pixels that may be flagged.

        Raises:
            ValueError: another word.
        """
        value = threshold[0] if isinstance(threshold, Sequence) and not isinstance(threshold, str) else threshold
        if value == "calibrated":
            found = self._calibrated()
            return self.threshold(rate) if found is None or found.pixel_threshold is None else found.pixel_threshold
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"threshold must be a number or 'calibrated', got {value!r}.") from None

    def threshold_source(self, threshold: float | str, rate: float) -> str:
        """Where the number came from that :meth:`resolve_threshold` gives, in words for records."""
        if threshold != "calibrated":
            return "setting of the run"
        found = self._calibrated()
        if found is not None and found.pixel_threshold is not None:
            return f"calibrated on {found.n} images ({found.method})"
        try:
            self.reference.pixel_threshold(rate)
        except ValueError:
            return "0.5, for there are too few normals to find one"
        return f"{rate:.3g} of the normals' pixels reach it"

    def _calibrated(self) -> CalibratedThresholds | None:
        path = None if self.path is None else thresholds_path(self.path)
        if path is None or not path.is_file():
            return None
        found = CalibratedThresholds.load(path)
        return found if found.prompts_sha256 == self.bank_digest else None


class ReferenceInferer(Inferer):
    """Compare frames, and volumes slice by slice, with a reference.

    Args:
        slice_axis: as for :class:`~monai_anomalyclip.inferers.AnomalySliceInferer`.
        progress: accepted for the sake of the other inferer.

    Example::

        output = ReferenceInferer()(load_input("surface.png")[None], network)
    """

    def __init__(self, slice_axis: int | str = "auto", progress: bool = False) -> None:
        super().__init__()
        self.slice_axis = slice_axis
        self.progress = progress

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Compare one input.

        Args:
            inputs: a frame (1, 1 or 3, H, W) or a volume (1, 1 or 3, X, Y, Z) in [0, 1], as a reader gives it.
            network: a :class:`ReferenceNetwork`.

        Returns:
            ``anomaly_map`` (1, 1, ...) and ``anomaly_score`` (1, n) in [0, 1], ``p_value`` (1, 1), NaN where the
            normals are too few for one; ``compared``, a list of one JSON text, for the record; and ``doubts``, a list
            of one text, a sentence a line.

        Raises:
            ValueError: more than one input, or another intensity preset than the normals'.
        """
        slices, view, meta = input_slices(inputs, self.slice_axis)
        known = {key: meta[key] for key in ("intensity", "modality", "patient") if meta.get(key)}
        group = f"patient {known.pop('patient')}" if known.get("patient") else None
        found = [network.reference.score(MetaTensor(one.contiguous(), meta=known), group=group) for one in slices]
        maps = torch.stack([one.anomaly_map for one in found]).clamp(0, 1)
        anomaly_map: Tensor = (maps[0] if view is None else view.from_slices(maps))[None].contiguous()
        if isinstance(inputs, MetaTensor):
            anomaly_map = MetaTensor(anomaly_map).copy_meta_from(inputs)
        scores = torch.tensor([[one.score for one in found]])
        p = found[0].p_value if view is None else volume_p_value(found)
        p_values = torch.tensor([[float("nan") if p is None else p]])
        return {
            "anomaly_map": anomaly_map,
            "anomaly_score": scores,
            "p_value": p_values,
            "compared": [json.dumps([_numbers(found, p, view is not None)])],
            "doubts": ["\n".join(_doubts(found, view is not None))],
        }


def input_slices(inputs: Tensor, slice_axis: int | str) -> tuple[Tensor, SliceView | None, dict[str, Any]]:
    """The slices of a batch of one input.

    Args:
        inputs: a frame (1, C, H, W) or a volume (1, C, X, Y, Z).
        slice_axis: of volumes that are not native stacks.

    Returns:
        slices (Z, C, H, W); how they lie in the volume, None of a frame; and the input's own meta entries.

    Raises:
        ValueError: more than one input.
    """
    if len(inputs) != 1:
        raise ValueError(f"Inputs are compared one at a time, got a batch of {len(inputs)}.")
    given = inputs.meta if isinstance(inputs, MetaTensor) else {}
    meta = {key: _only(value) for key, value in given.items() if key != "affine"}
    plain = inputs.as_tensor()[0] if isinstance(inputs, MetaTensor) else inputs[0]
    if plain.ndim == 3:
        return plain[None], None, meta
    shape = inputs.shape[2:]
    if bool(torch.as_tensor(given.get("native_slices", 0)).all()):
        view = SliceView.native(shape)
    else:
        affine = inputs.affine if isinstance(inputs, MetaTensor) else MetaTensor.get_default_affine()
        view = SliceView.from_affine(affine[0] if affine.ndim == 3 else affine, shape, slice_axis)
    return view.to_slices(plain), view, meta


class SideBySideInferer(Inferer):
    """AnomalyCLIP's map and scores, and beside them what a reference says of the same input.

    Args:
        inferer: of AnomalyCLIP.
        reference: the reference, on its device.

    Example::

        inferer = SideBySideInferer(AnomalySliceInferer(518), ReferenceNetwork("my_ct.reference"))
        output = inferer(load_input("study")[None], network)
        print(output["anomaly_score"], output["compared"])
    """

    def __init__(self, inferer: AnomalySliceInferer, reference: ReferenceNetwork) -> None:
        super().__init__()
        self.inferer, self.reference = inferer, reference
        self.slice_axis = inferer.slice_axis
        self.beside = ReferenceInferer(inferer.slice_axis)

    @property
    def progress(self) -> bool:
        """Whether progress bars are shown."""
        return self.inferer.progress

    @progress.setter
    def progress(self, value: bool) -> None:
        self.inferer.progress = value

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Score one input.

        Args:
            inputs: see :class:`ReferenceInferer`.
            network: AnomalyCLIP.
            args: for AnomalyCLIP's inferer.
            kwargs: likewise.

        Returns:
            what AnomalyCLIP's inferer gives; of the reference ``compared``, ``doubts`` and ``reference_map``, which is
            1 where pictures show their last colour and beyond.
        """
        found: dict[str, Any] = self.inferer(inputs, network, *args, **kwargs)
        beside = self.beside(inputs, self.reference)
        said = {name: beside[name] for name in ("compared", "doubts")}
        shown = (beside["anomaly_map"] / self.reference.map_ceiling).clamp(max=1)
        return {**found, **said, "reference_map": shown}


def _only(value: Any) -> Any:
    """After collation a meta entry holds one value per item."""
    return value[0] if isinstance(value, list | tuple) else value


def _numbers(found: list[Comparison], p: float | None, whole: bool) -> dict[str, Any]:
    """What was compared, for the record; `whole` is a volume, which is compared with volumes."""
    farthest = max(found, key=lambda one: one.score)
    calibration = farthest.volumes if whole else farthest.calibration
    return {
        "method": "reference",
        "score": farthest.score,
        "p_value": p,
        "k": farthest.k,
        "smallest_p": farthest.smallest_p,
        "says": "" if calibration is None else calibration.sentence(p),
    }


def _doubts(found: list[Comparison], whole: bool) -> list[str]:
    """What speaks against the comparison in the most suspicious slice, or of a volume as a whole."""
    farthest = max(found, key=lambda one: one.score)
    return [*([PARTLY_KEPT] if whole and farthest.volumes is None else []), *farthest.doubts.values()]
