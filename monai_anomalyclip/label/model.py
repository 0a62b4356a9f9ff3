# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The one network that all tasks of the MONAI Label app share, with the prompts in use."""

from __future__ import annotations

import copy
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.bundles.shipped import bundle_parser
from monai_anomalyclip.inferers import AnomalySliceInferer
from monai_anomalyclip.label.ranking import DescribedNetwork, short_descriptor
from monai_anomalyclip.label.reading import read_image
from monai_anomalyclip.networks import AnomalyCLIP, resolve_threshold
from monai_anomalyclip.networks.devices import check_precision
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest

__all__ = ["AnomalyModel", "Prediction"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        anomaly_map: (1, H, W) or (1, X, Y, Z) float32 in [0, 1] on the image's own grid, with its affine.
        anomaly_score: of the most suspicious slice, in [0, 1]; not calibrated.
        slice_index: which slice that is; 0 for a picture.
        descriptor: of that slice, for telling images apart.
        prompts: first 12 digits of the SHA-256 of the prompts' file, or of the bank.
        p_value: among normal images, where the model is a reference of some; see
            :func:`~monai_anomalyclip.reference.volume_p_value`.
        doubts: what that says, and what speaks against believing it.
    """

    anomaly_map: MetaTensor
    anomaly_score: float
    slice_index: int
    descriptor: list[float]
    prompts: str
    p_value: float | None = None
    doubts: tuple[str, ...] = ()


class AnomalyModel:
    """A bundle's network and inferer, and prompts that re-tuning may replace while it is in use.

    The prompts in use are `prompts.pt` in the app's own folder if there are any, else those of the bundle, which is
    never written to. They are looked at before each image: what another process tuned takes effect at once.

    Args:
        bundle: folder of a bundle of this package.
        folder: where re-tuned prompts are kept; made when prompts are first saved.
        precision: in which images are encoded, for proposals and for tuning (see
            :func:`~monai_anomalyclip.networks.resolve_precision`); None for what the bundle says of either.

    Attributes:
        default_threshold: of masks, as the bundle has it: a number, or "calibrated".

    Raises:
        FileNotFoundError: there is no bundle, or there are no prompts.
        ValueError: the prompts are damaged or of another backbone, or there is no such precision.

    Example::

        model = AnomalyModel("bundles/anomalyclip_demo", "app/model")
        model.predict("studies/brain_00.nii.gz").anomaly_score
    """

    def __init__(
        self, bundle: str | os.PathLike[str], folder: str | os.PathLike[str], precision: str | None = None
    ) -> None:
        check_precision(precision or "auto")
        self.precision = precision
        self.bundle, self.folder = Path(bundle), Path(folder)
        config = self.bundle / "configs" / "inference.json"
        if not config.is_file():
            raise FileNotFoundError(f"There is no bundle at {str(bundle)!r}: it has no configs/inference.json.")
        parser = bundle_parser(config, precision=precision)
        self._bundle_prompts = Path(parser.get_parsed_content("prompts"))
        self._network: AnomalyCLIP = parser.get_parsed_content("network_def").eval()
        inferer: AnomalySliceInferer = parser.get_parsed_content("inferer")
        inferer.progress = False
        self.inferer = inferer
        self.default_threshold: float | str = parser.get_parsed_content("threshold")
        self._loaded: tuple[Path, int, int] | None = None
        self._digest = ""
        self._lock = threading.Lock()  # the server answers several requests at a time
        with self._lock:
            self._refresh()

    @property
    def prompts_path(self) -> Path:
        """The prompts' file in use."""
        own = self.folder / "prompts.pt"
        return own if own.is_file() else self._bundle_prompts

    @property
    def prompts_digest(self) -> str:
        """First 12 digits of the digest of the prompts in use."""
        with self._lock:
            self._refresh()
            return self._digest

    def network(self, device: str | torch.device = "cpu") -> AnomalyCLIP:
        """A copy to tune: its own prompts, the shared frozen CLIP."""
        with self._lock:
            self._refresh()
            return copy.deepcopy(self._network.to(device))

    def predict(
        self, path: str | os.PathLike[str], *, preset: str = "auto", device: str | torch.device = "cpu"
    ) -> Prediction:
        """Score one image.

        Args:
            path: see :func:`~monai_anomalyclip.label.reading.read_image`.
            preset: intensity preset of volumes.
            device: where the network runs.

        Raises:
            UnreadableInputError: the image cannot be read.
        """
        image = read_image(path, preset)
        with self._lock:
            # Outside inference mode: weights that are moved or loaded in it could never be tuned through again.
            self._refresh()
            network = DescribedNetwork(self._network.to(device))
            digest = self._digest
            with torch.inference_mode():
                output = self.inferer(image[None], network)
        anomaly_map = output["anomaly_map"][0]
        score, index = output["anomaly_score"].flatten().max(dim=0)
        features = network.features
        assert features is not None
        return Prediction(anomaly_map, float(score), int(index), short_descriptor(features), digest)

    def threshold(self, value: Any, level: str = "pixel") -> float:
        """A request's threshold as a number (see :func:`~monai_anomalyclip.networks.resolve_threshold`).

        Where the bundle's own is "calibrated", clients send that unasked: after a tuning, which leaves nothing
        calibrated, it is 0.5.
        """
        try:
            return resolve_threshold(value, self.prompts_path, "image" if level == "image" else "pixel")
        except (FileNotFoundError, ValueError) as error:
            if self.default_threshold != "calibrated" or value not in ("calibrated", ["calibrated"]):
                raise
            logger.warning(f"{error} Until then the threshold is 0.5.")
            return 0.5

    def image_threshold(self) -> float:
        """The image score from which an image counts as anomalous: calibrated for these prompts, else 0.5."""
        try:
            return min(max(self.threshold("calibrated", "image"), 0.01), 0.99)
        except (FileNotFoundError, ValueError):
            return 0.5

    def save_prompts(self, network: AnomalyCLIP) -> Path | None:
        """Make the prompts of a network those in use; the file appears only when it is complete.

        Returns:
            where a copy of the prompts that were in use before is kept.
        """
        before = self.prompts_path
        kept = self.folder / "previous" / f"prompts_{str(prompts_digest(before))[:12]}.pt"
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            with replaced_when_complete(kept) as unfinished:
                unfinished.write_bytes(before.read_bytes())
        network.save_prompts(self.folder / "prompts.pt", overwrite=True)
        return kept

    def _refresh(self) -> None:
        path = self.prompts_path
        status = path.stat() if path.is_file() else None
        state = (path, status.st_mtime_ns, status.st_size) if status else None
        if state is None or state != self._loaded:
            self._network.load_prompts(path)  # says what to do where there are none
            self._loaded, self._digest = state, str(prompts_digest(path))[:12]
            logger.info(f"Prompts {self._digest} in use.")
