# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Reading, fitting and measuring a class, with a transparent method in place of anomalib's, against scikit-learn."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from monai_anomalyclip.experiments.fullshot import ClassImages, FullShotNetwork, classes_of, evaluate_class

SIZE = 64

pytestmark = pytest.mark.filterwarnings("ignore:.* is undefined")


class RedChannel(FullShotNetwork):
    """The map is the red channel, the score its mean; ``fit`` remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.model = _Red()
        self.fitted: list[Tensor] = []

    def fit(self, images: Sequence[Tensor], *, batch_size: int = 16, progress: bool = True) -> dict[str, Any]:
        self.fitted = list(images)
        return {"images": len(images)}


class _Red(nn.Module):
    def forward(self, image: Tensor) -> types.SimpleNamespace:
        red = image[:, :1] * 0.229 + 0.485
        return types.SimpleNamespace(anomaly_map=red, pred_score=red.mean((-2, -1)))


def save(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture
def images(tmp_path: Path) -> ClassImages:
    """Two normal images to learn from; five to test: two normal, two with masks, one of unknown mask."""
    rng = np.random.default_rng(3)
    pictures = rng.integers(0, 200, (7, SIZE, SIZE, 3), dtype=np.uint8)
    paths = [save(tmp_path / f"{n}.png", picture) for n, picture in enumerate(pictures)]
    tested: list[dict[str, Any]] = [{"image": path, "image_label": int(n >= 2)} for n, path in enumerate(paths[2:])]
    for n in (2, 3):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[10 * n : 10 * n + 12, 5:30] = 255
        pictures[2 + n][mask > 0] += np.uint8(40)
        save(Path(tested[n]["image"]), pictures[2 + n])
        tested[n]["label"] = save(tmp_path / f"{n}_mask.png", mask)
    return ClassImages("nut", [{"image": path, "image_label": 0} for path in paths[:2]], tested)


def expected(images: ClassImages) -> dict[str, float]:
    pictures = [np.asarray(Image.open(item["image"]))[..., 0].astype(float) for item in images.testing]
    labels = [item["image_label"] for item in images.testing]
    scores = [picture.mean() for picture in pictures]
    masks = [
        np.asarray(Image.open(item["label"])) > 0 if "label" in item else np.zeros((SIZE, SIZE), bool)
        for item in images.testing[:4]  # the mask of the fifth is not known
    ]
    pixels, truth = np.concatenate(pictures[:4]).ravel(), np.concatenate(masks).ravel()
    return {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
        "pixel_auroc": roc_auc_score(truth, pixels),
        "pixel_ap": average_precision_score(truth, pixels),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_metrics_equal_scikit_learn(batch_size: int, images: ClassImages) -> None:
    network = RedChannel()
    result = evaluate_class(network, images, batch_size=batch_size, progress=False)
    assert list(result["metrics"]) == [
        "image_auroc",
        "image_ap",
        "pixel_auroc",
        "pixel_ap",
        "pixel_aupro",
        "pixel_aupro_200",
    ]
    for name, value in expected(images).items():
        assert 0 < value < 1
        assert result["metrics"][name] == pytest.approx(value, abs=1e-9)
    assert 0 < result["metrics"]["pixel_aupro"] < 1
    assert (result["normal_images"], result["tested_images"], result["unreadable"]) == (2, 5, [])
    assert result["fit"] == {"images": 2}
    for item, fitted in zip(images.normal, network.fitted, strict=True):
        np.testing.assert_array_equal(fitted.permute(1, 2, 0), np.asarray(Image.open(item["image"])))
    assert type(network.fitted[0]) is Tensor


def test_a_map_that_marks_every_lesion_first_is_perfect(images: ClassImages, tmp_path: Path) -> None:
    for number, item in enumerate(images.testing[2:4]):
        mask = np.asarray(Image.open(item["label"]))
        item["image"] = save(
            tmp_path / f"marked{number}.png", np.where(mask[..., None] > 0, mask[..., None], np.uint8([9] * 3))
        )
    marked = ClassImages("nut", images.normal, images.testing[2:4])
    metrics = evaluate_class(RedChannel(), marked, progress=False)["metrics"]
    assert metrics["pixel_auroc"] == metrics["pixel_ap"] == metrics["pixel_aupro"] == pytest.approx(1)
    assert math.isnan(metrics["image_auroc"])  # both images are anomalous


def test_pictures_are_resized_as_by_pil(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    item = {"image": save(tmp_path / "large.png", pixels), "image_label": 0}
    network = RedChannel()
    evaluate_class(network, ClassImages("nut", [item], [item]), progress=False)
    resized = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    difference = np.abs(network.fitted[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(resized).astype(int))
    assert difference.max() <= 1


def test_images_that_cannot_be_read_are_named_and_left_out(
    images: ClassImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    save(tmp_path / "small_mask.png", np.full((8, 8), 255, np.uint8))
    damaged = ClassImages(
        "nut",
        [*images.normal, {"image": str(tmp_path / "broken.png"), "image_label": 0}],
        [
            {"image": str(tmp_path / "broken.png"), "image_label": 0},
            *images.testing,
            {"image": images.testing[0]["image"], "label": str(tmp_path / "small_mask.png")},
        ],
    )
    result = evaluate_class(RedChannel(), damaged, batch_size=2, progress=False)
    assert result["metrics"]["pixel_ap"] == pytest.approx(expected(images)["pixel_ap"], abs=1e-9)
    assert (result["normal_images"], result["tested_images"]) == (2, 5)
    assert [text.split(" ")[0] for text in result["unreadable"]] == ["broken.png", "broken.png", "2.png"]
    assert "has size (8, 8)" in result["unreadable"][2]
    assert "3 images of class nut cannot be read and are left out: broken.png" in caplog.text
    assert str(tmp_path) not in caplog.text + "".join(result["unreadable"])


def test_without_any_mask_the_pixel_metrics_are_undefined(images: ClassImages) -> None:
    labelled = ClassImages("nut", images.normal, images.testing[4:])
    metrics = evaluate_class(RedChannel(), labelled, progress=False)["metrics"]
    assert all(math.isnan(value) for value in metrics.values())
    both = ClassImages("nut", images.normal, [images.testing[0], images.testing[4]])
    metrics = evaluate_class(RedChannel(), both, progress=False)["metrics"]
    assert metrics["image_auroc"] in (0, 1)
    assert all(math.isnan(metrics[name]) for name in ("pixel_auroc", "pixel_ap", "pixel_aupro"))


def test_nothing_to_read_is_told(images: ClassImages, tmp_path: Path) -> None:
    (tmp_path / "broken.png").touch()
    broken = [{"image": str(tmp_path / "broken.png"), "image_label": 0}]
    with pytest.raises(ValueError, match="None of the 1 normal images of class nut can be read"):
        evaluate_class(RedChannel(), ClassImages("nut", broken, images.testing), progress=False)
    with pytest.raises(ValueError, match="None of the 1 tested images of class nut can be read"):
        evaluate_class(RedChannel(), ClassImages("nut", images.normal, broken), progress=False)


Entries = list[tuple[str, int | None, str | None]]


def datalist(folder: Path, **sections: Entries) -> Path:
    """Lists of (file name, image_label, class), with empty files for the images."""
    content: dict[str, list[dict[str, Any]]] = {}
    for section, entries in sections.items():
        content[section] = []
        for name, label, of_class in entries:
            (folder / name).touch()
            entry: dict[str, Any] = {"image": name, "class": of_class, "image_label": label}
            if label is None:
                entry["label"] = name
            content[section].append({key: value for key, value in entry.items() if value is not None})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def names(items: list[dict[str, Any]]) -> list[str]:
    return [Path(item["image"]).name for item in items]


def test_each_class_learns_from_its_own_normal_images(tmp_path: Path) -> None:
    path = datalist(
        tmp_path,
        training=[("a", 0, "nut"), ("b", 0, "pill"), ("c", 1, "nut"), ("d", 0, "nut"), ("e", None, "nut")],
        testing=[("f", 1, "pill"), ("g", 0, "nut"), ("h", 1, "nut"), ("i", 0, "pill")],
        validation=[("j", 0, "nut")],
    )
    pill, nut = classes_of(path)
    assert (pill.name, nut.name) == ("pill", "nut")
    assert names(nut.normal) == ["a", "d"]  # not the anomalous one, nor one of which only a mask is known
    assert names(nut.testing) == ["g", "h"]
    assert names(pill.normal) == ["b"]
    assert names(pill.testing) == ["f", "i"]
    (other,) = classes_of(path, "validation")
    assert (other.name, names(other.normal), names(other.testing)) == ("nut", ["a", "d"], ["j"])


def test_images_without_a_class_are_one(tmp_path: Path) -> None:
    (entry,) = classes_of(datalist(tmp_path, training=[("a", 0, None)], testing=[("b", 0, None), ("c", 1, None)]))
    assert (entry.name, names(entry.normal), names(entry.testing)) == ("all", ["a"], ["b", "c"])


def test_a_class_without_normal_images_is_told(tmp_path: Path) -> None:
    path = datalist(
        tmp_path,
        training=[("a", 0, "nut"), ("b", 1, "pill")],
        testing=[("c", 1, "nut"), ("d", 1, "pill"), *((f"x{n}", 0, f"class {n}") for n in range(6))],
    )
    with pytest.raises(
        ValueError,
        match=r"no normal images under 'training' for pill, class 0, class 1, class 2, class 3 and 2 more: .*--split "
        "original",
    ):
        classes_of(path)


def test_testing_on_what_was_learnt_is_refused(tmp_path: Path) -> None:
    path = datalist(
        tmp_path,
        training=[("a", 0, "nut"), ("b", 0, "nut"), ("c", 1, "nut")],
        testing=[("b", 0, "nut"), ("c", 1, "nut")],  # c was not learnt from
    )
    with pytest.raises(ValueError, match="1 images of 'testing' are also among the normal images of 'training'"):
        classes_of(path)


def test_a_missing_list_is_told(tmp_path: Path) -> None:
    path = datalist(tmp_path, training=[("a", 0, "nut")])
    with pytest.raises(ValueError, match="no entries under 'testing'"):
        classes_of(path)
