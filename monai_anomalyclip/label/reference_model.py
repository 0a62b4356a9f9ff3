# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A reference of normal images in the MONAI Label app, in the place of AnomalyCLIP."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_anomalyclip.bundles.errors import cause_of
from monai_anomalyclip.bundles.shipped import bundle_parser
from monai_anomalyclip.label.model import AnomalyModel, Prediction
from monai_anomalyclip.label.ranking import short_descriptor
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.reference.normal_facts import as_unit_image
from monai_anomalyclip.reference.reference_network import ReferenceInferer, ReferenceNetwork, input_slices

__all__ = ["ReferenceModel", "label_model"]

_RATE = 0.1


class ReferenceModel:
    """The bundle own_normals behind the face of :class:`~monai_anomalyclip.label.AnomalyModel`; nothing is tuned.

    Args:
        bundle: folder of the bundle; its bank is made by its ``train.json``, or by ``reference build``.
        folder: of the app's model; nothing is written there.

    Attributes:
        default_threshold: of masks, as the bundle has it: a number, or "calibrated".

    Raises:
        FileNotFoundError: there is no bundle, or it has no bank.
        ValueError: the bank is damaged.

    Example::

        model = ReferenceModel("bundles/own_normals", "app/model")
        model.predict("studies/ct_00.nii.gz").anomaly_score
    """

    def __init__(self, bundle: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
        self.bundle, self.folder = Path(bundle), Path(folder)
        parser = _parser(self.bundle)
        self.prompts_path = Path(parser.get_parsed_content("reference"))
        try:
            self._network: ReferenceNetwork = parser.get_parsed_content("network_def")
        except RuntimeError as error:  # MONAI wraps what its expressions raise
            raise cause_of(error) from None
        self.inferer: ReferenceInferer = parser.get_parsed_content("inferer")
        self.default_threshold: float | str = parser.get_parsed_content("threshold")
        self._rate = float(parser.get_parsed_content("false_positive_rate"))
        self._lock = threading.Lock()  # the server answers several requests at a time

    @property
    def prompts_digest(self) -> str:
        """First 12 digits of the bank's digest: with another bank images are scored anew."""
        return self._network.bank_digest[:12]

    def predict(
        self, path: str | os.PathLike[str], *, preset: str = "auto", device: str | torch.device = "cpu"
    ) -> Prediction:
        """Compare one image; see :meth:`AnomalyModel.predict`."""
        image = read_image(path, preset)[None]
        slices, _, _ = input_slices(image, self.inferer.slice_axis)
        with self._lock, torch.inference_mode():
            network = self._network.to(device)
            output = self.inferer(image, network)
            score, index = output["anomaly_score"].flatten().max(dim=0)
            patches = network.encoder(as_unit_image(slices[int(index)])[None])[0]
        p = float(output["p_value"])
        says = [one["says"] for one in json.loads(output["compared"][0])]
        return Prediction(
            output["anomaly_map"][0],
            float(score),
            int(index),
            short_descriptor(patches.mean(0)),
            self.prompts_digest,
            None if p != p else p,
            tuple(filter(None, (*says, *output["doubts"][0].splitlines()))),
        )

    def threshold(self, value: Any, level: str = "pixel") -> float:
        """A request's threshold as a number, see :meth:`ReferenceNetwork.resolve_threshold`."""
        return self.image_threshold() if level == "image" else self._network.resolve_threshold(value, self._rate)

    def image_threshold(self) -> float:
        """The score above which a tenth of the normals lies; 0.5 where they are too few to say."""
        try:
            return min(max(self._network.reference.calibration.threshold(_RATE), 0.01), 0.99)
        except ValueError:
            return 0.5


def label_model(
    bundle: str | os.PathLike[str], folder: str | os.PathLike[str], precision: str | None = None
) -> AnomalyModel | ReferenceModel:
    """The model of a bundle: AnomalyCLIP, or a reference where its ``inference.json`` names one.

    Args:
        bundle: its folder.
        folder: of the app's model.
        precision: as for :class:`AnomalyModel`; a reference has none.

    Raises:
        FileNotFoundError: there is no bundle, or it lacks prompts or a bank.
        ValueError: these are damaged, or of another backbone, or there is no such precision.
    """
    if "reference" not in _parser(Path(bundle)).get():
        return AnomalyModel(bundle, folder, precision)
    if precision is not None:
        raise ValueError(f"--conf precision {precision}: a reference of normal images compares in float32 only.")
    return ReferenceModel(bundle, folder)


def _parser(bundle: Path) -> ConfigParser:
    config = bundle / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"There is no bundle at {str(bundle)!r}: it has no configs/inference.json.")
    return bundle_parser(config)
