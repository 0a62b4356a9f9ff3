# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from monai_anomalyclip.inferers import AnomalySliceInferer, Views, ViewsInferer
from monai_anomalyclip.transforms import CLIPPreprocess


class Brightness(nn.Module):
    """The map is the first channel, brighter to the right, so that a mirror shows; the score tells the size."""

    patch_size = 14

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor, output: str = "anomaly_map") -> Tensor | dict[str, Tensor]:
        self.seen.append(tuple(images.shape[-2:]))
        ramp = torch.linspace(0, 1, images.shape[-1])
        found = (images[:, :1].sigmoid() + ramp) / 2
        return found if output == "anomaly_map" else {"anomaly_map": found, "anomaly_score": found.amax((1, 2, 3))}

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        result = self(images, output="prediction")
        assert isinstance(result, dict)
        return result


def by_hand(images: Tensor, scales: tuple[float, ...], flip: bool) -> np.ndarray:
    """The mean map with Pillow's resizing in the place of torch's."""
    network, found = Brightness(), []
    for scale in scales:
        sides = [round(side * scale / 14) * 14 for side in images.shape[-2:]]
        planes = [
            np.asarray(Image.fromarray(plane).resize(sides[::-1], Image.Resampling.BICUBIC))
            for plane in images[0].numpy()
        ]
        shown = torch.from_numpy(np.stack(planes))[None]
        for mirrored in (False, True)[: 1 + flip]:
            view = shown.flip(-1) if mirrored else shown
            seen = network(view)
            assert isinstance(seen, Tensor)
            plane = (seen.flip(-1) if mirrored else seen)[0, 0].numpy()
            found.append(np.asarray(Image.fromarray(plane).resize(images.shape[:1:-1], Image.Resampling.BILINEAR)))
    return np.mean(found, axis=0)


@pytest.mark.parametrize(
    ("scales", "flip"), [((1.0, 1.5), False), ((1.0,), True), ((0.5, 1.0, 2.0), True), ((1.5,), False)]
)
def test_mean_over_the_views(scales: tuple[float, ...], flip: bool) -> None:
    images = torch.randn(1, 3, 42, 28)
    result = ViewsInferer(scales, flip)(images, Brightness(), output="prediction")
    np.testing.assert_allclose(result["anomaly_map"][0, 0], by_hand(images, scales, flip), atol=2e-5)
    plain = ViewsInferer()(images, Brightness(), output="prediction")
    assert torch.equal(result["anomaly_score"], plain["anomaly_score"])  # of the image as it is
    assert Views(scales, flip).count == len(scales) * (1 + flip)


def test_off_by_default_and_nothing_is_computed_twice() -> None:
    network = Brightness()
    images = torch.randn(2, 3, 28, 28)
    assert torch.equal(ViewsInferer()(images, network), network(images))
    assert network.seen == [(28, 28)] * 2
    network.seen.clear()
    ViewsInferer((1, 1.5), True)(images, network, output="prediction")
    assert network.seen == [(28, 28), (28, 28), (42, 42), (42, 42)]


def test_prediction_and_evaluation_see_the_same() -> None:
    picture = torch.rand(1, 3, 28, 28)
    slices = AnomalySliceInferer(28, sigma=0, scales=(1, 1.5), flip=True)(picture, Brightness())
    evaluated = ViewsInferer((1, 1.5), True)(CLIPPreprocess(28)(picture[0])[None], Brightness(), output="prediction")
    torch.testing.assert_close(slices["anomaly_map"], evaluated["anomaly_map"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("scales", "sentence"),
    [
        ((), "must be at least one number"),
        ((1, 1), "each once"),
        ((0.1,), "A scale of 0.1 is out of range"),
        ((9,), "out of range"),
        ((float("nan"),), "out of range"),
    ],
)
def test_wrong_scales(scales: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Views(scales)


def test_what_has_no_other_views_is_refused() -> None:
    class Fixed(Brightness):
        patch_size = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match="images of any size"):
        ViewsInferer((1.5,))(torch.zeros(1, 3, 28, 28), Fixed(), output="prediction")
    with pytest.raises(ValueError, match="images of any size"):
        AnomalySliceInferer(28, flip=True)(torch.zeros(1, 3, 28, 28), Fixed())
    with pytest.raises(ValueError, match="not their cached features"):
        ViewsInferer((1.5,))({"global_features": torch.zeros(1)}, lambda *_, **__: {"anomaly_map": torch.zeros(1)})


class Noting(Brightness):
    """Notes in what matrices are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def forward(self, images: Tensor, output: str = "anomaly_map") -> Tensor | dict[str, Tensor]:
        ones = torch.ones(2, 2)
        self.types.append((ones @ ones).dtype)
        return {"anomaly_map": ones} if isinstance(images, dict) else super().forward(images, output)


def test_images_are_encoded_in_the_chosen_precision_and_features_are_not_encoded() -> None:
    for precision, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        network, inferer = Noting(), ViewsInferer((1.0, 1.5), precision=precision)
        inferer(torch.randn(1, 3, 28, 28), network, output="prediction")
        ViewsInferer(precision=precision)({"global_features": torch.zeros(1)}, network)
        assert network.types == [expected, expected, torch.float32]
    with pytest.raises(ValueError, match="precision='half' is not one of"):
        ViewsInferer(precision="half")


def test_a_batch_that_does_not_fit_is_evaluated_in_parts() -> None:
    def halves(images: Tensor, output: str) -> dict[str, Any]:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        layers = [images.mean((1, 2, 3)), images.amax((1, 2, 3))]
        return {"anomaly_map": images[:, :1], output: layers}

    images = torch.randn(5, 3, 28, 28)
    found = ViewsInferer()(images, halves, output="patch_logits")
    assert torch.equal(found["anomaly_map"], images[:, :1])
    assert torch.equal(found["patch_logits"][0], images.mean((1, 2, 3)))
    assert torch.equal(found["patch_logits"][1], images.amax((1, 2, 3)))
