# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A reference in the place of a network, so that bundles, the face and the writers take it as they take AnomalyCLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from torch import Tensor, nn

from monai_anomalyclip.data.slicing import SliceView
from monai_anomalyclip.reference.comparison import Comparison, volume_p_value
from monai_anomalyclip.reference.encoders import tensors_digest
from monai_anomalyclip.reference.normal_reference import NormalReference

__all__ = ["ReferenceInferer", "ReferenceNetwork"]


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

    def threshold(self, rate: float) -> float:
        """Map value from which at most this share of the normals' pixels is flagged; 0.5 where they are too few."""
        try:
            return min(self.reference.pixel_threshold(rate), 1.0)
        except ValueError:
            return 0.5


class ReferenceInferer(Inferer):
    """Compare frames, and volumes slice by slice, with a reference.

    Args:
        slice_axis: as for :class:`~monai_anomalyclip.inferers.AnomalySliceInferer`.
        progress: accepted for the sake of the other inferer.
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
            normals are too few for one, and ``doubts``, a list of one text, a sentence a line.

        Raises:
            ValueError: more than one input, or another intensity preset than the normals'.
        """
        if len(inputs) != 1:
            raise ValueError(f"Inputs are compared one at a time, got a batch of {len(inputs)}.")
        meta = inputs.meta if isinstance(inputs, MetaTensor) else {}
        plain = inputs.as_tensor()[0] if isinstance(inputs, MetaTensor) else inputs[0]
        record = meta.get("intensity")
        record = {"intensity": record[0] if isinstance(record, list | tuple) else record} if record else {}
        view = None if plain.ndim == 3 else self._view(inputs, meta)
        slices = plain[None] if view is None else view.to_slices(plain)
        found = [network.reference.score(MetaTensor(one.contiguous(), meta=record)) for one in slices]
        maps = torch.stack([one.anomaly_map for one in found]).clamp(0, 1)
        anomaly_map: Tensor = (maps[0] if view is None else view.from_slices(maps))[None].contiguous()
        if isinstance(inputs, MetaTensor):
            anomaly_map = MetaTensor(anomaly_map).copy_meta_from(inputs)
        scores = torch.tensor([[one.score for one in found]])
        p = found[0].p_value if view is None else volume_p_value(found)
        p_values = torch.tensor([[float("nan") if p is None else p]])
        doubts = _sentences(found, p)
        return {"anomaly_map": anomaly_map, "anomaly_score": scores, "p_value": p_values, "doubts": ["\n".join(doubts)]}

    def _view(self, inputs: Tensor, meta: Any) -> SliceView:
        shape = inputs.shape[2:]
        if bool(torch.as_tensor(meta.get("native_slices", 0)).all()):
            return SliceView.native(shape)
        affine = inputs.affine if isinstance(inputs, MetaTensor) else MetaTensor.get_default_affine()
        return SliceView.from_affine(affine[0] if affine.ndim == 3 else affine, shape, self.slice_axis)


def _sentences(found: list[Comparison], p: float | None) -> list[str]:
    """What the comparison says, and what speaks against it in the most suspicious slice."""
    farthest = max(found, key=lambda one: one.score)
    calibration = farthest.calibration if len(found) == 1 else farthest.calibration.largest_of_each()
    return [calibration.sentence(p), *farthest.doubts.values()]
