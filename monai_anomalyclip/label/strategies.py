# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Active learning: every image is scored once per state of the prompts, and one of them is offered next.

By its anomaly score, its uncertainty, or how unlike the labelled ones it is.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from typing import Any

import requests
import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.utils.others.generic import name_to_device

from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.label.model import AnomalyModel
from monai_anomalyclip.label.ranking import Candidate, highest_score, most_diverse, most_uncertain, rested
from monai_anomalyclip.label.reference_model import ReferenceModel

__all__ = ["DESCRIPTOR", "PROMPTS", "SCORE", "AnomalyScoring", "HighestScore", "MostDiverse", "MostUncertain"]


SCORE, DESCRIPTOR, PROMPTS, SLICE = "anomaly_score", "anomaly_descriptor", "anomaly_prompts", "anomaly_slice"
"""Keys of an image's info."""
_TOO_MANY_REQUESTS, _SERVER_ERRORS = 429, 500  # HTTP status; server errors begin there
logger = logging.getLogger(__name__)


class _Ranked(Strategy):
    """Offers the first image of a ranking of those that have no final label and were not offered lately."""

    measure: str

    @abstractmethod
    def _ranked(self, candidates: list[Candidate], datastore: Datastore) -> list[tuple[Candidate, float | None]]:
        """The candidates in their order, each with its measure."""

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The next image as ``{"id", measure}``, with its score and most suspicious slice where they are known.

        None when every image has its final label.
        """
        names = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        candidates = [_candidate(name, datastore.get_image_info(name)) for name in names]
        ranked = self._ranked(rested(candidates, time.time()), datastore)
        if not ranked:
            return None
        chosen, value = ranked[0]
        info = datastore.get_image_info(chosen.name)
        known = {key: info[key] for key in (SCORE, SLICE) if info.get(key) is not None}
        return {"id": chosen.name, **known, self.measure: value}


class HighestScore(_Ranked):
    """The highest anomaly score first."""

    measure = "anomaly_score"

    def __init__(self) -> None:
        super().__init__("The image with the highest anomaly score")

    def _ranked(self, candidates: list[Candidate], datastore: Datastore) -> list[tuple[Candidate, float | None]]:
        return highest_score(candidates)


class MostUncertain(_Ranked):
    """The anomaly score nearest to the threshold first.

    Args:
        model: whose threshold is used.
    """

    measure = "uncertainty"

    def __init__(self, model: AnomalyModel | ReferenceModel) -> None:
        super().__init__("The image whose anomaly score is nearest to the threshold")
        self.model = model

    def _ranked(self, candidates: list[Candidate], datastore: Datastore) -> list[tuple[Candidate, float | None]]:
        return most_uncertain(candidates, self.model.image_threshold())


class MostDiverse(_Ranked):
    """The image least like those that have their final label first."""

    measure = "distance"

    def __init__(self) -> None:
        super().__init__("The image least like those that are labelled")

    def _ranked(self, candidates: list[Candidate], datastore: Datastore) -> list[tuple[Candidate, float | None]]:
        labelled = [datastore.get_image_info(name).get(DESCRIPTOR, ()) for name in datastore.get_labeled_images()]
        return most_diverse(candidates, [descriptor for descriptor in labelled if descriptor])


def _candidate(name: str, info: dict[str, Any]) -> Candidate:
    offered = [float(record.get("ts", 0)) for record in info.get("strategy", {}).values()]
    return Candidate(name, info.get(SCORE), info.get(DESCRIPTOR, ()), max(offered, default=0.0))


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
