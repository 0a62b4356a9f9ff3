# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Re-tuning of the prompts as MONAI Label's training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list, name_to_device

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.label.infer_tasks import single
from monai_anomalyclip.label.model import AnomalyModel
from monai_anomalyclip.label.prompt_tuning import tune_prompts
from monai_anomalyclip.transforms.intensity_presets import PRESET_NAMES

__all__ = ["PromptTuningTask"]

logger = logging.getLogger(__name__)


class PromptTuningTask(TrainTask):
    """Tunes the prompts in use on all final labels; empty ones are normal studies.

    The tuned prompts take effect for every task as soon as they are saved; those of before are kept. When the loss
    does not fall, nothing changes.

    Args:
        model: whose prompts are tuned.
    """

    def __init__(self, model: AnomalyModel) -> None:
        super().__init__("Re-tune the prompts on the final labels")
        self.model = model

    def config(self) -> dict[str, Any]:
        """Options that clients show."""
        return {
            "device": device_list(),
            "preset": list(PRESET_NAMES),
            "max_epochs": 10,
            "learning_rate": 0.001,
            "train_batch_size": 8,
        }

    def stats(self) -> dict[str, Any]:
        """What the last tuning did (see :class:`~monai_anomalyclip.label.prompt_tuning.TuningReport`)."""
        try:
            content: dict[str, Any] = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return {}
        return content

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Tune on what the datastore lists.

        Returns:
            what :meth:`stats` gives afterwards.

        Raises:
            ValueError: there is no final label, or an option has no such value.
        """
        options = {**self.config(), **request}
        network, report = tune_prompts(
            self.model,
            [{key: pair[key] for key in ("image", "label")} for pair in datastore.datalist()],
            device=name_to_device(options["device"]),
            preset=single(options["preset"]),
            max_epochs=int(single(options["max_epochs"])),
            learning_rate=float(single(options["learning_rate"])),
            batch_size=int(single(options["train_batch_size"])),
        )
        if report.improved:
            self.model.save_prompts(network)
        else:
            logger.warning("The loss did not fall: the prompts stay as they were.")
        result = {**report.to_dict(), "prompts": self.model.prompts_digest}
        with replaced_when_complete(self._record) as unfinished:
            unfinished.write_text(json.dumps(result, indent=4) + "\n")
        return result

    @property
    def _record(self) -> Path:
        self.model.folder.mkdir(parents=True, exist_ok=True)
        return self.model.folder / "tuning.json"
