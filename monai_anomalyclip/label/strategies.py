# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Active learning: the next image by its anomaly score, its uncertainty, or how unlike the labelled ones it is."""

from __future__ import annotations

import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from monai_anomalyclip.label.model import AnomalyModel
from monai_anomalyclip.label.ranking import Candidate, highest_score, most_diverse, most_uncertain, rested
from monai_anomalyclip.label.reference_model import ReferenceModel
from monai_anomalyclip.label.scoring import DESCRIPTOR, SCORE, SLICE

__all__ = ["HighestScore", "MostDiverse", "MostUncertain"]


class _Ranked(Strategy):
    """Offers the first image of a ranking of those that have no final label and were not offered lately."""

    measure: str

    def _ranked(self, candidates: list[Candidate], datastore: Datastore) -> list[tuple[Candidate, float | None]]:
        raise NotImplementedError

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
