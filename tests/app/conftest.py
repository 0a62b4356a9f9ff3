# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Results of a CT and of a picture, with masks of known regions, as the page finds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from monai_anomalyclip.app.studies import Study, Workplace
from monai_anomalyclip.data.inputs import InputCatalogue
from monai_anomalyclip.demo import demo_network
from monai_anomalyclip.handlers.result_writer import AnomalyResultWriter


class Scored(NamedTuple):
    """A study with results, and the masks that were put into them."""

    place: Workplace
    study: Study
    masks: dict[str, np.ndarray]


@pytest.fixture
def scored(tmp_path: Path, phantoms: ModuleType) -> Callable[[], Scored]:
    """Makes the study: its results come from the writer, with maps of our own."""

    def make() -> Scored:
        place = Workplace(tmp_path / "app")
        study = place.new("Head CT")
        study.sent.mkdir()
        phantoms.make_series(study.sent / "ct", count=5, size=(40, 48))
        Image.fromarray(np.full((40, 48, 3), 90, np.uint8)).save(study.sent / "skin.png")
        catalogue = InputCatalogue(study.inputs)
        writer = AnomalyResultWriter(study.results, catalogue, demo_network(deep_prompt_depth=4), threshold=0.5)
        masks = {}
        for item in catalogue.items():
            source = catalogue.sources[item["name"]]
            image = source.load()
            heat = torch.zeros(1, *image.shape[1:])
            if source.kind == "volume":
                heat[0, 5:10, 20:30, 1:3] = 0.7
                heat[0, 30:36, 4:9, 3] = 0.9
            else:
                heat[0, 3:9, 11:20] = 0.8
            scores = heat.amax(dim=(0, 1, 2)) if source.kind == "volume" else heat.amax()
            writer.write({"name": item["name"], "image": image, "anomaly_map": heat, "anomaly_score": scores})
            masks[item["name"]] = heat[0].numpy() >= 0.5
        writer.finish()
        study.change(names=tuple(catalogue.sources), state="finished")
        return Scored(place, study, masks)

    return make
