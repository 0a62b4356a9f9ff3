# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The MONAI Label app; an app folder's ``main.py`` imports it."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from fastapi import Depends
from monailabel.config import settings
from monailabel.datastore.local import LocalDatastore
from monailabel.endpoints.user.auth import RBAC
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
from monai_anomalyclip.label.app_folder import bundle_of
from monai_anomalyclip.label.archive_labels import answer_without_segmentation, saved_label_answer
from monai_anomalyclip.label.checked_datastores import (
    CheckedArchive,
    CheckedFolder,
    CheckedSessions,
    told_to_the_client,
    upload_removed_on_failure,
)
from monai_anomalyclip.label.model import AnomalyModel
from monai_anomalyclip.label.pages import add_first_page, fit_ohif
from monai_anomalyclip.label.reference_model import label_model
from monai_anomalyclip.label.request_values import check_options, lies_inside, plain_name
from monai_anomalyclip.label.server_checks import devices, guard_server, max_bytes
from monai_anomalyclip.label.strategies import AnomalyScoring, HighestScore, MostDiverse, MostUncertain
from monai_anomalyclip.label.tasks import HeatMapTask, LevelSetTask, MaskTask, PolygonTask, PromptTuningTask

__all__ = ["AnomalyLabelApp"]


class AnomalyLabelApp(MONAILabelApp):
    """Proposals, corrections and re-tuning with one AnomalyCLIP.

    What clients send is looked at before MONAI Label's own code sees it (see
    :mod:`~monai_anomalyclip.label.server_checks`), and once more where it is used.

    Args:
        app_dir: an app folder (see :func:`~monai_anomalyclip.label.write_label_app`).
        studies: folder of images, or the address of a DICOMweb service.
        conf: options of the command line; ``bundle`` names another bundle than the app folder does, ``precision`` is
            that of :class:`~monai_anomalyclip.label.AnomalyModel`, for ``hosts``, ``origins`` and ``max_upload_mib``
            see :func:`~monai_anomalyclip.label.server_checks.guard_server`.

    Raises:
        FileNotFoundError: there is no bundle, or there are no prompts.
        ValueError: an option has no such value.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        bundle = (conf or {}).get("bundle") or bundle_of(app_dir)
        self.model = label_model(bundle, Path(app_dir) / "model", (conf or {}).get("precision"))
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
        """Re-tuning of the prompts, under the name of the mask, where clients look for it; a reference has none."""
        return {"anomaly": PromptTuningTask(self.model)} if isinstance(self.model, AnomalyModel) else {}

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
            store.__class__ = CheckedFolder  # making a second one would watch the folder twice
        return store

    def _init_dicomweb_datastore(self) -> Datastore:
        store = super()._init_dicomweb_datastore()
        store.__class__ = CheckedArchive  # likewise
        return store

    def server_mode(self, mode: bool) -> None:
        """Told by the server when it starts: from then on it checks every request."""
        super().server_mode(mode)
        if mode:
            served = sys.modules["monailabel.app"]
            guard_server(served.app, self.conf)
            add_first_page(served.app, archive=str(self.studies).startswith(("http://", "https://")))
            checks = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]  # those of MONAI Label's own route
            fit_ohif(served.app, Path(served.static_dir) / "ohif", checks)

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a client's request; what is wrong with it is told with status 400 or 404 instead of 500."""
        image = request.get("image")
        sent = image if isinstance(image, str) and os.path.isabs(image) and "session" not in request else ""
        with told_to_the_client(), upload_removed_on_failure(sent) if sent else nullcontext():
            check_options(request, devices(), own=("image", "session", "description"))
            self._check_image(image, datastore or self.datastore())
            answer: dict[str, Any] = super().infer(request, datastore)
        return answer

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Likewise; pictures are inferred as a whole, regions of whole slides are not read."""
        return self.infer(request, datastore)

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer for many images; likewise."""
        with told_to_the_client():
            check_options(request, devices())
            answer: dict[str, Any] = super().batch_infer(request, datastore)
        return answer

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Re-tune the prompts; likewise."""
        with told_to_the_client():
            check_options(request, devices(), own=("local_rank",))
            result: dict[str, Any] = super().train(request)
        return result

    def scoring(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Score all images without a final label; likewise."""
        with told_to_the_client():
            check_options(request, devices())
            result: dict[str, Any] = super().scoring(request, datastore)
        return result

    def _load_sessions(self, load: bool = False) -> CheckedSessions | None:
        if not load:
            return None
        return CheckedSessions(
            settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY, max_bytes(self.conf)
        )

    def _check_image(self, image: Any, datastore: Datastore) -> None:
        """Only uploads, which MONAI Label keeps in two places, are named by their path."""
        uploads = [tempfile.gettempdir(), *([self._sessions.store_path] if self._sessions is not None else [])]
        if isinstance(image, str) and os.path.isabs(image):
            if not any(lies_inside(image, folder) for folder in uploads):
                raise ValueError("An image is named by its name in the studies, or sent along; paths are not taken.")
        elif isinstance(datastore, CheckedArchive | CheckedFolder):
            datastore.check_image(image)
        else:
            plain_name(image, "The image")
        if isinstance(image, str) and not os.path.isabs(image) and os.path.exists(image):
            # MONAI Label would read that file instead.
            raise ValueError("The folder in which the server was started has a file of this name: start it elsewhere.")

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """Say in the answer to a final label whether it is that of a normal study.

        Over DICOMweb the answer also says whether the label is in the archive, as a segmentation.
        """
        super().on_save_label(image_id, label_id)
        return saved_label_answer()


class _BatchInfer(BatchInferTask):
    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Any) -> Any:
        return super().__call__({"multi_gpu": torch.cuda.device_count() > 1, **request}, datastore, infer)
