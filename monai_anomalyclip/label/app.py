# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The MONAI Label app; an app folder's ``main.py`` imports it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.app_folder import bundle_of
from monai_anomalyclip.label.archive_labels import (
    ArchiveDatastore,
    FolderDatastore,
    answer_without_segmentation,
    saved_label_answer,
)
from monai_anomalyclip.label.infer_tasks import HeatMapTask, LevelSetTask, MaskTask, PolygonTask
from monai_anomalyclip.label.model import AnomalyModel
from monai_anomalyclip.label.scoring import AnomalyScoring
from monai_anomalyclip.label.strategies import HighestScore, MostDiverse, MostUncertain
from monai_anomalyclip.label.train_task import PromptTuningTask

__all__ = ["AnomalyLabelApp"]


class AnomalyLabelApp(MONAILabelApp):
    """Proposals, corrections and re-tuning with one AnomalyCLIP.

    Args:
        app_dir: an app folder (see :func:`~monai_anomalyclip.label.write_label_app`).
        studies: folder of images, or the address of a DICOMweb service.
        conf: options of the command line; ``bundle`` names another bundle than the app folder does.

    Raises:
        FileNotFoundError: there is no bundle, or there are no prompts.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        bundle = (conf or {}).get("bundle") or bundle_of(app_dir)
        self.model = AnomalyModel(bundle, Path(app_dir) / "model")
        answer_without_segmentation()
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf or {},
            name="AnomalyCLIP",
            description=f"Zero-shot anomaly detection and segmentation. {RESEARCH_USE_ONLY}",
            version=__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Mask, nested labels, heat map and polygons."""
        return {
            "anomaly": MaskTask(self.model),
            "anomaly_levels": LevelSetTask(self.model),
            "anomaly_heatmap": HeatMapTask(self.model),
            "anomaly_polygons": PolygonTask(self.model),
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """Re-tuning of the prompts, under the name of the mask, where clients look for it."""
        return {"anomaly": PromptTuningTask(self.model)}

    def init_strategies(self) -> dict[str, Strategy]:
        """By score, uncertainty and diversity; MONAI Label's own two."""
        return {
            "highest_score": HighestScore(),
            "most_uncertain": MostUncertain(self.model),
            "most_diverse": MostDiverse(),
            "first": First(),
            "random": Random(),
        }

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Anomaly scores of all images without a final label."""
        return {"anomaly_score": AnomalyScoring(self.model)}

    def init_batch_infer(self) -> BatchInferTask:
        """MONAI Label's, on one device unless there are several GPUs: on a CPU its default divides by zero."""
        return _BatchInfer()

    def init_datastore(self) -> Datastore:
        """MONAI Label's; that of a local folder takes readable final labels only."""
        store = super().init_datastore()
        if type(store) is LocalDatastore:
            store.__class__ = FolderDatastore  # making a second one would watch the folder twice
        return store

    def _init_dicomweb_datastore(self) -> Datastore:
        store = super()._init_dicomweb_datastore()
        store.__class__ = ArchiveDatastore  # likewise
        return store

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a client's request; what is wrong with it is told with status 400 instead of 500."""
        with _told_to_the_client():
            answer: dict[str, Any] = super().infer(request, datastore)
        return answer

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Re-tune the prompts; likewise."""
        with _told_to_the_client():
            result: dict[str, Any] = super().train(request)
        return result

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """Say in the answer to a final label whether it is that of a normal study.

        Over DICOMweb the answer also says whether the label is in the archive, as a segmentation.
        """
        super().on_save_label(image_id, label_id)
        return saved_label_answer()


@contextmanager
def _told_to_the_client() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, UnreadableInputError, ValueError) as error:
        raise HTTPException(status_code=400, detail=str(error)) from error


class _BatchInfer(BatchInferTask):
    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Any) -> Any:
        return super().__call__({"multi_gpu": torch.cuda.device_count() > 1, **request}, datastore, infer)
