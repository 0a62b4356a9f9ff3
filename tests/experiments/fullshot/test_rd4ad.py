# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""RD4AD against its paper's equations on the model's own features, and what its training does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from monai_anomalyclip.demo.phantoms import make_phantom
from monai_anomalyclip.experiments.fullshot import RD4AD

pytest.importorskip("anomalib", reason="anomalib (the extra fullshot) is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")

SIZE = 64
Features = tuple[list[Tensor], list[Tensor]]


def pictures(seeds: range, *, anomalous: bool = False) -> list[Tensor]:
    """Phantoms, (3, SIZE, SIZE) uint8."""
    return [torch.from_numpy(make_phantom("tile", anomalous, n, SIZE)[0]).permute(2, 0, 1) for n in seeds]


@torch.no_grad()
def features(network: RD4AD, image: Tensor, *, training: bool) -> Features:
    """Encoder's and decoder's features of the three stages."""
    encoded = list(network.model.encoder(network.normalize(image)).values())
    network.model.bottleneck.train(training)
    network.model.decoder.train(training)
    decoded = network.model.decoder(network.model.bottleneck(encoded))
    network.model.eval()
    return encoded, decoded


def one_minus_cosine(left: np.ndarray, right: np.ndarray, axis: int) -> np.ndarray:
    norms = np.linalg.norm(left, axis=axis) * np.linalg.norm(right, axis=axis)
    return 1 - (left * right).sum(axis=axis) / norms


def test_map_and_score_equal_the_equations() -> None:
    network = RD4AD("resnet18", weights=None, image_size=SIZE, epochs=2)
    network.fit(pictures(range(4)), progress=False)
    image = torch.stack(pictures(range(50, 53), anomalous=True))
    with torch.no_grad():
        prediction = network.predict(image)
    assert prediction["anomaly_map"].shape == (3, 1, SIZE, SIZE)
    encoded, decoded = features(network, image, training=False)
    assert [stage.shape[1:] for stage in encoded] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    for index in range(3):
        expected = np.zeros((SIZE, SIZE))
        for left, right in zip(encoded, decoded, strict=True):
            stage = one_minus_cosine(left[index].double().numpy(), right[index].double().numpy(), axis=0)
            expected += zoom(stage, SIZE / len(stage), order=1, grid_mode=False)
        expected = gaussian_filter(expected, 4, mode="mirror", truncate=4)
        np.testing.assert_allclose(prediction["anomaly_map"][index, 0], expected, rtol=1e-4, atol=1e-6)
        assert float(prediction["anomaly_score"][index]) == pytest.approx(expected.max(), rel=1e-4)


def test_training_on_normal_images_lowers_loss_and_map() -> None:
    network = RD4AD("resnet18", weights=None, image_size=SIZE, epochs=16)
    encoder = {key: value.clone() for key, value in network.model.encoder.state_dict().items()}
    learned = [value.clone() for value in network.model.decoder.parameters()]
    unseen = torch.stack(pictures(range(20, 24)))
    with torch.no_grad():
        before = network.predict(unseen)
    normal = pictures(range(6))
    first = features(network, torch.stack(normal), training=True)
    losses = network.fit(normal, batch_size=8, progress=False)["training_loss"]
    with torch.no_grad():
        after = network.predict(unseen)
    # The loss that is lowered: the cosine over each stage as a whole, here of the one batch of the first epoch.
    flat = [
        (left.flatten(1).double().numpy(), right.flatten(1).double().numpy())
        for left, right in zip(*first, strict=True)
    ]
    assert losses[0] == pytest.approx(sum(one_minus_cosine(*pair, axis=1).mean() for pair in flat), rel=1e-4)
    assert len(losses) == 16
    assert losses[-1] < 0.5 * losses[0]
    assert losses[8] < 0.8 * losses[0]
    assert float(after["anomaly_map"].mean()) < 0.8 * float(before["anomaly_map"].mean())
    assert all(torch.equal(value, encoder[key]) for key, value in network.model.encoder.state_dict().items())
    assert not any(torch.equal(new, old) for new, old in zip(network.model.decoder.parameters(), learned, strict=True))
    assert not network.model.training


def test_optimiser_is_that_of_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.optim.Adam] = []

    class Recorded(torch.optim.Adam):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            seen.append(self)
            super().step()

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    network = RD4AD("resnet18", weights=None, image_size=SIZE, epochs=2)
    network.fit(pictures(range(5)), batch_size=2, progress=False)
    assert len(seen) == 2 * 3
    (group,) = seen[0].param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.005, (0.5, 0.999), 0)
    own = [*network.model.decoder.parameters(), *network.model.bottleneck.parameters()]
    assert {id(value) for value in group["params"]} == {id(value) for value in own}


def test_training_mode_changes_nothing() -> None:
    network = RD4AD("resnet18", weights=None, image_size=SIZE, epochs=1)
    image = torch.stack(pictures(range(2)))
    expected = network(image)
    assert torch.equal(network.train()(image), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
        ({"image_size": 72}, "image_size=72 must be a multiple of 32"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RD4AD("resnet18", weights=None, **settings)  # type: ignore[arg-type]


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one normal image"):
        RD4AD("resnet18", weights=None, image_size=SIZE, epochs=1).fit([], progress=False)
