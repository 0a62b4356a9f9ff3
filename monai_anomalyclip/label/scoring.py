# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Score every image once per state of the prompts, and keep the scores with the images."""

from __future__ import annotations

import logging
import time
from typing import Any

import requests
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.utils.others.generic import name_to_device

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.model import AnomalyModel
from monai_anomalyclip.label.reference_model import ReferenceModel

__all__ = ["DESCRIPTOR", "PROMPTS", "SCORE", "AnomalyScoring"]

SCORE, DESCRIPTOR, PROMPTS, SLICE = "anomaly_score", "anomaly_descriptor", "anomaly_prompts", "anomaly_slice"
"""Keys of an image's info."""

_TOO_MANY_REQUESTS, _SERVER_ERRORS = 429, 500  # HTTP status; server errors begin there

logger = logging.getLogger(__name__)


class AnomalyScoring(ScoringMethod):
    """Scores the images that have no final label; those scored with the prompts in use are passed over.

    An image that cannot be fetched or read does not stop the others: it counts as scored, without a score. Where the
    archive did not answer, or memory did not suffice, it is tried again at the next call.

    Args:
        model: shared with the infer tasks.
    """

    def __init__(self, model: AnomalyModel | ReferenceModel) -> None:
        super().__init__("Anomaly score of each image")
        self.model = model

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what is to be scored.

        Args:
            request: ``device``, ``preset``, and ``max_samples`` to score no more than that many.
            datastore: where the images are and the scores go.

        Returns:
            ``{"total", "skipped", "executed", "failed", "latency"}``.

        Raises:
            RuntimeError: the network cannot be run, e.g. because there is no such device; no image is to blame.
        """
        begun = time.perf_counter()
        prompts = self.model.prompts_digest
        names = sorted(datastore.get_unlabeled_images())
        open_names = [name for name in names if datastore.get_image_info(name).get(PROMPTS) != prompts]
        limit = int(request.get("max_samples") or len(open_names))
        failed = 0
        for name in open_names[:limit]:
            try:
                info = self._info_or_none(name, datastore, request)
            except _TryAgainError as error:
                logger.warning(f"An image cannot be scored now ({error}): the next call tries it again.")
                failed += 1
                continue
            failed += info is None
            info = info or {SCORE: None, PROMPTS: prompts}
            # The server may have saved labels meanwhile, in another process: read its file anew before writing it.
            datastore.refresh()
            try:
                datastore.update_image_info(name, info)
            except ImageNotFoundException:
                logger.warning("An image is not in the datastore (removed meanwhile, or never fetched).")
        return {
            "total": len(names),
            "skipped": len(names) - len(open_names),
            "executed": len(open_names[:limit]),
            "failed": failed,
            "latency": round(time.perf_counter() - begun, 3),
        }

    def _info_or_none(self, name: str, datastore: Datastore, request: dict[str, Any]) -> dict[str, Any] | None:
        """What is kept with an image; None when it is of no use."""
        try:
            path = datastore.get_image_uri(name)
        except Exception as error:  # MONAI Label's readers raise nearly anything; messages quote UIDs and addresses
            if _says_nothing_of_the_image(error):
                raise _TryAgainError(type(error).__name__) from None
            logger.warning(f"An image cannot be fetched or read ({type(error).__name__}).")
            return None
        try:
            prediction = self.model.predict(
                path, preset=request.get("preset", "auto"), device=name_to_device(request.get("device"))
            )
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise _TryAgainError(type(error).__name__) from None
        except (UnreadableInputError, ValueError) as error:
            logger.warning(f"An image cannot be scored: {error}")
            return None
        return {
            SCORE: prediction.anomaly_score,
            SLICE: prediction.slice_index,
            DESCRIPTOR: prediction.descriptor,
            PROMPTS: prediction.prompts,
        }


class _TryAgainError(Exception):
    """An image could not be scored for a reason that says nothing of the image."""


def _says_nothing_of_the_image(error: Exception) -> bool:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS
    return isinstance(error, requests.ConnectionError | requests.Timeout | MemoryError)
