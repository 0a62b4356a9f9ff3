# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""PatchCore against a brute-force search over timm's own features in float64."""

from __future__ import annotations

import types

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import timm
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.spatial.distance import cdist
from torch import Tensor

from monai_anomalyclip.demo.phantoms import make_phantom
from monai_anomalyclip.experiments.fullshot import PatchCore

pytest.importorskip("anomalib", reason="anomalib (the extra fullshot) is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")

SIZE = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(count: int, *, anomalous: bool = False) -> list[Tensor]:
    """Phantoms, (3, SIZE, SIZE) uint8; no scene is both normal and anomalous."""
    seeds = range(100, 100 + count) if anomalous else range(count)
    return [torch.from_numpy(make_phantom("tile", anomalous, n, SIZE)[0]).permute(2, 0, 1) for n in seeds]


@torch.no_grad()
def patch_features(network: PatchCore, images: list[Tensor]) -> npt.NDArray[np.float64]:
    """(images, 64, 384): the second and third stage, averaged over 3 x 3, on the grid of the second."""
    resnet = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(2, 3)).double().eval()
    own = network.model.feature_extractor.feature_extractor.state_dict()
    resnet.load_state_dict({key: own[key] for key in resnet.state_dict()})
    pixels = torch.stack(images).double() / 255
    pixels = (pixels - torch.tensor(MEAN).double()[:, None, None]) / torch.tensor(STD).double()[:, None, None]
    stages = [uniform_filter(stage.numpy(), (1, 1, 3, 3), mode="constant") for stage in resnet(pixels)]
    coarse = F.interpolate(torch.from_numpy(stages[1]), size=stages[0].shape[2:], mode="bilinear").numpy()
    joined = np.concatenate([stages[0], coarse], axis=1)
    assert joined.shape == (len(images), 384, 8, 8)
    return joined.reshape(len(images), 384, 64).transpose(0, 2, 1)


def brute_force(memory: npt.NDArray[np.float64], patches: npt.NDArray[np.float64], b: int) -> tuple[float, np.ndarray]:
    """Score by equations 6 and 7 of the paper, and the map, of one image's patches (64, 384)."""
    distances = cdist(patches, memory)
    nearest = distances.min(axis=1)
    farthest = nearest.argmax()
    match = distances[farthest].argmin()
    neighbours = cdist(memory[match][None], memory)[0].argsort()[:b]
    exponentials = np.exp(cdist(patches[farthest][None], memory[neighbours])[0])
    weight = 1.0 if b == 1 else 1 - np.exp(nearest[farthest]) / exponentials.sum()
    upsampled = np.kron(nearest.reshape(8, 8), np.ones((8, 8)))
    return weight * nearest[farthest], gaussian_filter(upsampled, 4, mode="mirror", truncate=4)


@pytest.mark.parametrize("neighbours", [1, 5])
def test_map_and_score_equal_brute_force(neighbours: int) -> None:
    network = PatchCore("resnet18", weights=None, image_size=SIZE, coreset_ratio=1, num_neighbors=neighbours).double()
    normal, tested = pictures(4), pictures(3, anomalous=True)
    assert network.fit(normal, batch_size=3, progress=False) == {"memory_bank": 4 * 64}
    prediction = network.predict(torch.stack(tested))
    assert prediction["anomaly_map"].shape == (3, 1, SIZE, SIZE)
    assert prediction["anomaly_score"].shape == (3,)
    memory = patch_features(network, normal).reshape(-1, 384)
    for index, patches in enumerate(patch_features(network, tested)):
        score, anomaly_map = brute_force(memory, patches, neighbours)
        assert score > 0
        # The kernel of anomalib's blur is float32; a distance is the root of a difference of squares.
        assert float(prediction["anomaly_score"][index]) == pytest.approx(score, rel=1e-6)
        np.testing.assert_allclose(prediction["anomaly_map"][index, 0], anomaly_map, rtol=1e-5)


def test_map_lights_up_where_a_normal_image_is_damaged() -> None:
    network = PatchCore("resnet18", weights=None, image_size=SIZE, coreset_ratio=1)
    normal = pictures(3)
    network.fit(normal, progress=False)
    damaged = normal[1].clone()
    damaged[:, 8:24, 40:56] = torch.tensor([250, 0, 250], dtype=torch.uint8)[:, None, None]
    prediction = network.predict(torch.stack([normal[1], damaged]))
    assert float(prediction["anomaly_score"][1]) > 10 * float(prediction["anomaly_score"][0])
    row, column = divmod(int(prediction["anomaly_map"][1, 0].argmax()), SIZE)
    assert 8 <= row < 24
    assert 40 <= column < 56
    assert torch.equal(network(damaged[None]), network.predict(damaged[None])["anomaly_map"])


def test_coreset_is_a_share_of_the_features_and_the_same_for_a_seed() -> None:
    banks = []
    for _ in range(2):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002  # what anomalib's random projection draws from
        network = PatchCore("resnet18", weights=None, image_size=SIZE, coreset_ratio=0.3).double()
        assert network.fit(pictures(3), progress=False) == {"memory_bank": 57}  # of 192
        banks.append(network.model.memory_bank)
    assert torch.equal(*banks)
    features = patch_features(network, pictures(3)).reshape(-1, 384)
    nearest = cdist(banks[0].numpy(), features)
    assert nearest.min(axis=1).max() < 1e-9 * np.linalg.norm(features, axis=1).max()
    assert len(set(nearest.argmin(axis=1))) == 57
    # Spread out over the features: no feature is farther from a kept one than from 57 drawn at random.
    drawn = np.random.default_rng(0).choice(192, 57, replace=False)
    assert nearest.min(axis=0).max() < cdist(features[drawn], features).min(axis=0).max()


def test_fitting_anew_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    network = PatchCore("resnet18", weights=None, image_size=SIZE, coreset_ratio=1)
    network.fit(pictures(3), progress=False)

    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(network.model, "generate_embedding", interrupt)
        with pytest.raises(KeyboardInterrupt):
            network.fit(pictures(2), progress=False)
    assert not network.model.training
    assert network.fit(pictures(2), progress=False) == {"memory_bank": 2 * 64}


def test_training_mode_changes_nothing() -> None:
    network = PatchCore("resnet18", weights=None, image_size=SIZE)
    network.fit(pictures(2), progress=False)
    image = torch.stack(pictures(1, anomalous=True))
    expected = network(image)
    assert torch.equal(network.train()(image), expected)


def test_features_that_do_not_fit_into_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = PatchCore("resnet18", weights=None, image_size=SIZE)
    needed = 2 * 3 * 64 * 384 * 4
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=needed))
    network.fit(pictures(3), progress=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=needed - 1))
    with pytest.raises(ValueError, match=r"The patch features of 3 images of 64 pixels need .* smaller image size"):
        network.fit(pictures(3), progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 100}, "image_size=100 must be a multiple of 32"),
        ({"image_size": 32}, "image_size=32 must be a multiple of 32 pixels, at least 64"),
        ({"coreset_ratio": 0.0}, r"coreset_ratio=0.0 must lie in \(0, 1\]"),
        ({"num_neighbors": 0}, "num_neighbors=0 must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchCore("resnet18", weights=None, **settings)  # type: ignore[arg-type]


def test_wrong_input_is_refused() -> None:
    network = PatchCore("resnet18", weights=None, image_size=SIZE)
    with pytest.raises(ValueError, match="Memory bank is empty"):
        network(torch.stack(pictures(1)))
    with pytest.raises(ValueError, match="at least one normal image"):
        network.fit([], progress=False)
    with pytest.raises(ValueError, match=r"uint8 of shape \(B, 3, 64, 64\), got torch.float32"):
        network(torch.zeros(1, 3, SIZE, SIZE))
    with pytest.raises(ValueError, match=r"got torch.uint8 \(1, 3, 32, 64\)"):
        network(torch.zeros(1, 3, 32, SIZE, dtype=torch.uint8))
    with pytest.raises(ValueError, match="output='logits' is not one of"):
        network(torch.stack(pictures(1)), output="logits")  # type: ignore[arg-type]
