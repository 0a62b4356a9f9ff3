# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A site of a federated tuning: its own bundle and images; prompts come in, their change goes out, in a FLARE job."""

from __future__ import annotations

import argparse
import logging
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from monai_anomalyclip.bundles.shipped import literal_path
from monai_anomalyclip.handlers import ProximalTerm

__all__ = [
    "SITE_VARIABLE",
    "FederatedSite",
    "SiteSettings",
    "main",
]


class SiteSettings(BaseModel):
    """What a site decides for itself, and a job cannot change.

    Attributes:
        bundle: folder of the site's own bundle; a job brings none.
        dataset_dir: folder of the images, with ``datalist.json``.
        output_dir: folder for checkpoints, curves and the site's prompts of the last round.
        configs: files that overlay the bundle's ``train.json``.
        ids: further ids of the configuration, such as ``{"batch_size": 4}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: Path
    dataset_dir: Path
    output_dir: Path
    configs: tuple[Path, ...] = ()
    ids: dict[str, Any] = {}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SiteSettings:
        """Read a JSON file; paths in it are relative to its folder.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not the JSON of these fields.
        """
        path = Path(path)
        try:
            found = cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"'{path}' does not describe a site: {where or 'content'}: {first['msg']}.") from None
        root = path.absolute().parent
        placed = {name: root / getattr(found, name) for name in ("bundle", "dataset_dir", "output_dir")}
        return found.model_copy(update={**placed, "configs": tuple(root / config for config in found.configs)})


class FederatedSite:
    """Tunes a site's prompts, a round at a time, with MONAI's ``MonaiAlgo``.

    Every round begins with the prompts that are handed in, whatever the site has tuned before. Nothing but the change
    of the prompts and the number of steps is handed out.

    Args:
        settings: what the site decides.
        name: of the site.
        epochs: over the site's images in each round.

    Raises:
        ValueError: the bundle's training cannot be taken apart by MonaiAlgo.

    Example:
        >>> site = FederatedSite(SiteSettings.read("site.json"), "clinic_a")
        >>> change, steps = site.tune(prompts)
    """

    def __init__(self, settings: SiteSettings, name: str, epochs: int = 1) -> None:
        from monai.fl.client import MonaiAlgo
        from monai.fl.utils.constants import ExtraItems

        if epochs < 1:
            raise ValueError(f"A round takes at least 1 epoch, not {epochs}.")
        paths = {
            "dataset_dir": settings.dataset_dir,
            "output_dir": settings.output_dir,
            "model_dir": settings.output_dir / "models",
        }
        self._client = MonaiAlgo(
            str(settings.bundle),
            local_epochs=epochs,
            send_weight_diff=False,
            config_train_filename=["configs/train.json", *map(str, settings.configs)],
            train_kwargs={**{key: literal_path(path.absolute()) for key, path in paths.items()}, **settings.ids},
            config_evaluate_filename=None,
        )
        self._client.initialize({ExtraItems.CLIENT_NAME: name})
        self.network: torch.nn.Module = self._client.trainer.network
        self._proximal = ProximalTerm(self.network, mu=0.0)
        self._proximal.attach(self._client.trainer)

    def tune(self, prompts: Mapping[str, Any], mu: float = 0.0) -> tuple[dict[str, Tensor], int]:
        """Tune one round.

        Args:
            prompts: the network's state dict, as arrays or tensors.
            mu: of FedProx; 0 for plain tuning.

        Returns:
            how much each tensor has changed, and how many steps were done. They are tensors, since NVFlare's client
            leaves arrays aside, with no more than a line in its log.

        Raises:
            ValueError: what was handed in is not the whole state dict of this site's network, or not finite.
        """
        from monai.fl.utils.constants import FlStatistics, WeightType
        from monai.fl.utils.exchange_object import ExchangeObject

        began = self._checked(prompts)
        self._proximal.mu = mu
        self._client.train(ExchangeObject(weights=began, weight_type=WeightType.WEIGHTS))
        # The bundle's seed has set these for the whole process; a privacy filter that runs in it must not draw noise
        # that whoever knows the bundle can draw, too.
        random.seed()
        np.random.seed()  # noqa: NPY002 - the generator that such filters use
        answer = self._client.get_weights()
        change = {name: answer.weights[name] - value for name, value in began.items()}
        if not all(value.isfinite().all() for value in change.values()):
            raise ValueError("The prompts are no longer finite: tune with a smaller learning rate.")
        return change, int(answer.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS])

    def _checked(self, prompts: Mapping[str, Any]) -> dict[str, Tensor]:
        """As tensors of their own. MonaiAlgo skips arrays, and takes a part of the prompts for all of them."""
        own = self.network.state_dict()
        if set(prompts) != set(own):
            wrong = sorted(set(prompts) ^ set(own))
            raise ValueError(
                f"{len(set(prompts) & set(own))} of {len(own)} prompts were received (differing: {', '.join(wrong)}): "
                "the server and this site must use networks of the same settings."
            )
        received = {name: torch.as_tensor(np.array(prompts[name], dtype=np.float32)) for name in own}
        for name, value in received.items():
            if value.shape != own[name].shape:
                raise ValueError(
                    f"{name} was received with shape {tuple(value.shape)}, but is {tuple(own[name].shape)} here."
                )
            if not value.isfinite().all():
                raise ValueError(f"{name} was received with values that are not finite.")
        return received


SITE_VARIABLE = "MONAI_ANOMALYCLIP_SITE"
logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Take part in a job until it ends.

    Args:
        arguments: ``--epochs N``; ``--site FILE`` where the environment variable that names the site's file is not
            set: it wins, so that a job cannot name another one.

    Raises:
        ValueError: no file describes the site, or what was received is not the network's whole state dict.
    """
    import nvflare.client as flare

    parser = argparse.ArgumentParser()
    parser.add_argument("--site", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args(arguments)
    described = os.environ.get(SITE_VARIABLE) or given.site
    if not described:
        raise ValueError(f"No file describes this site: name it in the environment variable {SITE_VARIABLE}.")
    flare.init()
    site = FederatedSite(SiteSettings.read(described), flare.get_site_name(), given.epochs)
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        change, steps = site.tune(received.params or {}, float((received.meta or {}).get("fedprox_mu", 0.0)))
        size = sum(value.nbytes for value in change.values())
        logger.info(f"{size} bytes in {len(change)} tensors after {steps} steps.")
        flare.send(
            flare.FLModel(
                params=change,
                params_type=flare.ParamsType.DIFF,
                meta={"NUM_STEPS_CURRENT_ROUND": steps},
            )
        )
