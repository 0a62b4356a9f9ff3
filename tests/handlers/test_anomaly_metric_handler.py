# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from monai_anomalyclip.handlers import AUPRO, ImageAP, ImageAUROC, PixelAP, PixelAUROC, RegionRecall
from monai_anomalyclip.handlers.anomaly_metric import AnomalyMetricHandler
from monai_anomalyclip.metrics import AUPROMetric

Items = list[dict[str, Any]]
CLASSES = ("bottle", "cable")


class FirstChannel(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1]


def items(count: int = 11) -> Items:
    made = []
    for index in range(count):
        mask = torch.zeros(1, 8, 8)
        if index % 3:
            mask[0, 1:4, index % 4 : index % 4 + 3] = 1
        image = torch.rand(3, 8, 8) + 0.4 * mask
        made.append({"image": image, "label": mask, "class": CLASSES[index % 2]})
    return made


def pooled(of: Items) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        torch.cat([x.flatten() for x in xs]).numpy() for xs in ([i["image"][0] for i in of], [i["label"] for i in of])
    )  # type: ignore[return-value]


def evaluated(of: Items, decollate: bool = True, **metrics: AnomalyMetricHandler) -> dict[str, float]:
    first = next(iter(metrics))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(of), batch_size=3),
        network=FirstChannel(),
        key_val_metric={first: metrics.pop(first)},
        additional_metrics=metrics,
        decollate=decollate,
    )
    for _ in range(2):  # the second run must not know of the first one
        evaluator.run()
    found: dict[str, float] = evaluator.state.metrics
    assert all(isinstance(value, float) for value in found.values())
    return found


@pytest.mark.parametrize("decollate", [True, False])
@pytest.mark.parametrize(("kind", "oracle"), [(PixelAUROC, roc_auc_score), (PixelAP, average_precision_score)])
def test_per_class_and_mean_in_monais_evaluator(kind: type, oracle: Callable[..., float], decollate: bool) -> None:
    data = items()
    handler = kind(from_engine(["pred", "label"]), classes=from_engine("class"))
    found = evaluated(data, decollate, metric=handler)
    expected = {}
    for name in CLASSES:
        scores, labels = pooled([item for item in data if item["class"] == name])
        expected[f"metric/{name}"] = float(oracle(labels, scores))
    expected["metric"] = float(np.mean(list(expected.values())))
    assert found == pytest.approx(expected, abs=1e-12)
    scores, labels = pooled(data)
    assert expected["metric"] != pytest.approx(oracle(labels, scores), abs=1e-4)
    whole = evaluated(data, decollate, metric=kind(from_engine(["pred", "label"]), method="histogram"))
    assert whole == {"metric": pytest.approx(oracle(labels, scores), abs=1e-3)}


def test_all_metrics_at_once() -> None:
    data = items()
    both = from_engine(["pred", "label"])

    def scores(output: Any) -> tuple[list[Tensor], list[Tensor]]:
        maps, masks = both(output)
        return [x.max() for x in maps], [x.max() for x in masks]

    found = evaluated(
        data,
        image_auroc=ImageAUROC(scores),
        image_ap=ImageAP(scores),
        pixel_auroc=PixelAUROC(both),
        pixel_aupro=AUPRO(both),
        pixel_aupro_200=AUPRO(both, method="thresholds_200", fpr_limit=0.5),
        recall=RegionRecall(both, threshold=1.36, sizes=(5,)),
    )
    maxima = [item["image"][0].max().item() for item in data]
    anomalous = [int(item["label"].max()) for item in data]
    assert found["image_auroc"] == pytest.approx(roc_auc_score(anomalous, maxima), abs=1e-6)
    assert found["image_ap"] == pytest.approx(average_precision_score(anomalous, maxima), abs=1e-6)
    for name, options in (("pixel_aupro", {}), ("pixel_aupro_200", {"method": "thresholds_200", "fpr_limit": 0.5})):
        metric = AUPROMetric(**options)
        metric(torch.stack([item["image"][:1] for item in data]), torch.stack([item["label"] for item in data]))
        assert found[name] == pytest.approx(float(metric.aggregate()), abs=1e-12)
    hits = [bool(item["image"][0][item["label"][0] == 1].max() >= 1.36) for item in data if item["label"].any()]
    assert 0 < np.mean(hits) < 1
    assert found["recall"] == found["recall/from 5 px"] == pytest.approx(np.mean(hits))
    assert found["recall/regions from 5 px"] == len(hits)
    assert math.isnan(found["recall/below 5 px"])


@pytest.mark.parametrize("decollate", [True, False])
def test_items_whose_mask_is_unknown_are_left_out(decollate: bool) -> None:
    data = items()
    for index, item in enumerate(data):
        item["known"] = torch.tensor(int(index not in (2, 3, 4, 5, 9)))  # the second batch altogether

    def known(output: Any) -> Any:
        if isinstance(output, dict):
            return output["pred"], output["label"]["label"], output["label"]["known"]
        return tuple(zip(*((o["pred"], o["label"]["label"], o["label"]["known"]) for o in output), strict=True))

    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=3),
        network=FirstChannel(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], {key: batch[key] for key in ("label", "known")}),
        key_val_metric={"metric": PixelAUROC(known, classes=from_engine("class"))},
        decollate=decollate,
    )
    evaluator.run()
    kept = [item for item in data if item["known"]]
    for name in CLASSES:
        scores, labels = pooled([item for item in kept if item["class"] == name])
        assert evaluator.state.metrics[f"metric/{name}"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_undefined_class_in_an_engine() -> None:
    data = items()
    for item in data[1::2]:
        item["label"].zero_()
    handler = AUPRO(from_engine(["pred", "label"]), from_engine("class"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = evaluated(data, metric=handler)
    assert math.isnan(found["metric/cable"])
    assert found["metric"] == found["metric/bottle"] > 0
    told = [str(warning.message) for warning in caught if "undefined" in str(warning.message)]
    assert len(told) == 2  # one for each run
    assert told[0] == (
        "AUPRO is undefined (NaN) for 1 of 2 classes, which the mean leaves out: "
        "cable (no mask has an anomalous region)."
    )


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("ImageAUROC", {}),
        ("ImageAP", {}),
        ("PixelAUROC", {"method": "histogram"}),
        ("PixelAP", {"method": "exact"}),
        ("AUPRO", {"method": "histogram", "fpr_limit": 0.1}),
        ("RegionRecall", {"threshold": 0.4, "sizes": [10, 20], "overlap": 0.5}),
    ],
)
def test_from_a_configuration(target: str, options: dict[str, Any]) -> None:
    parser = ConfigParser(
        {
            "metric": {
                "_target_": f"monai_anomalyclip.handlers.{target}",
                "output_transform": "$lambda output: (output['maps'], output['masks'])",
                "classes": "$monai.handlers.from_engine('class')",
                **options,
            }
        }
    )
    handler = parser.get_parsed_content("metric")
    assert isinstance(handler, AnomalyMetricHandler)
    for key, value in options.items():
        held = getattr(handler.metric_fn.metric, key)
        assert (list(held) if isinstance(value, list) else held) == value


def test_labels_as_numbers() -> None:
    engine = Engine(lambda _, batch: batch)
    ImageAUROC().attach(engine, "auroc")
    state = engine.run([([0.1, 0.4], [0, 0]), ([0.35, 0.8], [1, 1])])
    assert state.metrics["auroc"] == 0.75


def test_other_outputs_are_refused() -> None:
    handler = PixelAUROC()
    with pytest.raises(ValueError, match="predictions, targets and maybe has_label, got 1"):
        handler.update((torch.rand(1, 1, 2, 2),))


class MapOfFirstChannel(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1]


def test_metric_of_monais_evaluator() -> None:
    items: list[dict[str, Any]] = [
        {"image": torch.rand(3, 6, 6), "label": (torch.rand(1, 6, 6) > 0.7).float()} for _ in range(5)
    ]
    expected = roc_auc_score(
        torch.cat([item["label"].flatten() for item in items]).numpy(),
        torch.cat([item["image"][0].flatten() for item in items]).numpy(),
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=MapOfFirstChannel(),
        key_val_metric={"pixel_auroc": PixelAUROC(from_engine(["pred", "label"]))},
    )
    for _ in range(2):  # the second run must not pool the first one's pixels
        evaluator.run()
        assert evaluator.state.metrics["pixel_auroc"] == pytest.approx(expected, abs=1e-12)
        assert isinstance(evaluator.state.metrics["pixel_auroc"], float)
    assert evaluator.state.metric_details == {}


def test_default_output_transform() -> None:
    engine = Engine(lambda _, batch: batch)
    PixelAUROC().attach(engine, "auroc")
    maps, masks = torch.rand(3, 1, 4, 4), (torch.rand(3, 1, 4, 4) > 0.5).float()
    state = engine.run(list(zip(maps[:, None], masks[:, None], strict=True)))
    expected = roc_auc_score(masks.flatten().numpy(), maps.flatten().numpy())
    assert state.metrics["auroc"] == pytest.approx(expected, abs=1e-12)


def test_one_class_gives_nan_and_one_warning() -> None:
    engine = Engine(lambda _, batch: batch)
    PixelAUROC().attach(engine, "auroc")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = engine.run([(torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))])
    assert state.metrics["auroc"] != state.metrics["auroc"]  # NaN
    assert sum("Pixel AUROC is undefined" in str(warning.message) for warning in caught) == 1
