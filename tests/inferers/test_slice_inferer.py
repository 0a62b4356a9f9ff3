# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from monai_anomalyclip.inferers import AnomalySliceInferer

OBLIQUE = Rotation.from_euler("xyz", [12, -9, 17], degrees=True).as_matrix()
# Columns: where the voxel axes point to in RAS, times the spacing.
AFFINES = {
    "RAS": np.diag([1.0, 1.0, 3.0]),
    "LPS": np.diag([-1.0, -1.0, 3.0]),
    "RSA": np.array([[1.0, 0, 0], [0, 0, 1], [0, 3, 0]]),
    "PIR": np.array([[0.0, 0, 2], [-1, 0, 0], [0, -1, 0]]),
    "oblique LPS": OBLIQUE @ np.diag([-0.9, -0.9, 4.0]),
    "oblique SAL": OBLIQUE @ np.array([[0.0, 0, -3], [0, 1, 0], [1, 0, 0]]),
}
SHAPE = (18, 23, 13)


class Mirror(torch.nn.Module):
    """A network whose map is its input's first channel, before normalisation, plus a ramp down and across the image."""

    def __init__(self, ramp: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.ramp = ramp
        self.batches: list[tuple[int, ...]] = []
        self.seen: list[torch.Tensor] = []

    def predict(self, images: torch.Tensor, shift: float = 0.0) -> dict[str, torch.Tensor]:
        self.batches.append(tuple(images.shape))
        self.seen.append(images)
        maps = (images[:, :1] * OPENAI_DATASET_STD[0] + OPENAI_DATASET_MEAN[0]) * self.weight + shift
        height, width = images.shape[-2:]
        maps = maps + self.ramp * (torch.arange(height)[:, None] + 100 * torch.arange(width))
        return {"anomaly_map": maps, "anomaly_score": maps.amax(dim=(1, 2, 3))}


def affine_of(name: str) -> torch.Tensor:
    affine = np.eye(4)
    affine[:3, :3] = AFFINES[name]
    affine[:3, 3] = [-30, 12, 55]
    return torch.from_numpy(affine)


def expected_ramp(affine: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The ramp of `Mirror` in voxel space, found through nibabel's canonical orientation."""
    orientation = nib.orientations.io_orientation(affine)
    canonical_axis = int(orientation[axis, 0])
    sizes = [shape[int(np.flatnonzero(orientation[:, 0] == a)[0])] for a in range(3)]  # along R, A, S
    right, anterior, superior = np.meshgrid(*(np.arange(n) for n in sizes), indexing="ij")
    to_left, to_posterior, to_inferior = sizes[0] - 1 - right, sizes[1] - 1 - anterior, sizes[2] - 1 - superior
    rows, columns = {
        0: (to_inferior, to_posterior),  # sagittal
        1: (to_inferior, to_left),  # coronal
        2: (to_posterior, to_left),  # axial
    }[canonical_axis]
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), orientation)
    return nib.orientations.apply_orientation(rows + 100 * columns, back)


def slice_shape(affine: np.ndarray, shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    orientation = nib.orientations.io_orientation(affine)
    sizes = {"RAS"[int(orientation[a, 0])]: shape[a] for a in range(3)}
    row, column = {"R": "SA", "A": "SR", "S": "AR"}["RAS"[int(orientation[axis, 0])]]
    return sizes[row], sizes[column]


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_shown_upright_and_come_back_to_their_voxels(name: str, axis: int) -> None:
    affine = affine_of(name)
    volume = MetaTensor(torch.rand(1, 1, *SHAPE), affine=affine)
    size = slice_shape(affine.numpy(), SHAPE, axis)  # the network's input is the slice itself: nothing is resampled
    result = AnomalySliceInferer(size, slice_axis=axis, sigma=0)(volume, Mirror(ramp=1.0))
    expected = volume.as_tensor().numpy()[0, 0] + expected_ramp(affine.numpy(), SHAPE, axis)
    np.testing.assert_allclose(result["anomaly_map"][0, 0], expected, atol=2e-4)
    others = tuple(a for a in range(3) if a != axis)
    np.testing.assert_allclose(result["anomaly_score"][0], expected.max(axis=others), atol=2e-4)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("axis", [0, 1, 2, "auto"])
def test_a_blob_comes_back_at_its_voxel_after_resampling(name: str, axis: int | str) -> None:
    volume = torch.zeros(1, 1, *SHAPE)
    volume[0, 0, 3:6, 15:18, 8:11] = 1
    inputs = MetaTensor(volume, affine=affine_of(name))
    result = AnomalySliceInferer((56, 42), slice_axis=axis, sigma=1.5)(inputs, Mirror())
    anomaly_map = result["anomaly_map"].as_tensor()[0, 0]
    weight = anomaly_map.double().clamp(min=1e-4) - 1e-4
    indices = torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")
    centre = [float((weight * index).sum() / weight.sum()) for index in indices]
    np.testing.assert_allclose(centre, [4, 16, 9], atol=0.05)
    assert float(anomaly_map[4, 16, 9]) > 0.5
    assert float(anomaly_map[13, 6, 3]) < 1e-3


@pytest.mark.parametrize(("name", "n_slices"), [("RAS", 13), ("RSA", 23), ("PIR", 13), ("oblique LPS", 13)])
def test_auto_cuts_along_the_thickest_axis(name: str, n_slices: int) -> None:
    inputs = MetaTensor(torch.rand(1, 1, *SHAPE), affine=affine_of(name))
    assert AnomalySliceInferer(28)(inputs, Mirror())["anomaly_score"].shape == (1, n_slices)


def test_frames_equal_resizing_and_smoothing_by_hand() -> None:
    frames = torch.rand(3, 3, 40, 30)
    network = Mirror()
    result = AnomalySliceInferer((40, 30), sigma=2)(frames, network)
    assert result["anomaly_map"].shape == (3, 1, 40, 30)
    assert result["anomaly_score"].shape == (3, 1)
    for frame, anomaly_map, score in zip(frames, result["anomaly_map"], result["anomaly_score"], strict=True):
        np.testing.assert_allclose(anomaly_map[0], gaussian_filter(frame[0].numpy(), 2), atol=1e-5)
        np.testing.assert_allclose(score, frame[0].max(), atol=1e-5)
    gray = AnomalySliceInferer((40, 30), sigma=2)(frames[:, :1], network)
    torch.testing.assert_close(gray["anomaly_map"], result["anomaly_map"])


def test_frames_come_back_in_their_own_size() -> None:
    frames = torch.zeros(1, 3, 90, 160)
    frames[..., 20:40, 120:140] = 1
    anomaly_map = AnomalySliceInferer(64, sigma=0)(frames, Mirror())["anomaly_map"]
    assert anomaly_map.shape == (1, 1, 90, 160)
    centre = np.average(np.argwhere(anomaly_map[0, 0].numpy() > 0.5), axis=0)
    np.testing.assert_allclose(centre, [29.5, 129.5], atol=0.6)


def test_the_network_gets_three_normalised_channels() -> None:
    network = Mirror()
    AnomalySliceInferer(28)(torch.full((1, 1, 9, 9), 0.5), network)
    expected = (0.5 - torch.tensor(OPENAI_DATASET_MEAN)) / torch.tensor(OPENAI_DATASET_STD)
    torch.testing.assert_close(network.seen[0], expected.view(1, 3, 1, 1).expand(1, 3, 28, 28))


def test_batch_sizes_do_not_change_the_result() -> None:
    volumes = torch.rand(3, 1, 17, 19, 7)
    affines = torch.stack([affine_of(name) for name in ("RAS", "LPS", "oblique LPS")])
    together = MetaTensor(volumes, affine=affines)
    results = [AnomalySliceInferer(28, slice_batch_size=n)(together, Mirror()) for n in (1, 3, 100)]
    for item in range(3):
        alone = AnomalySliceInferer(28)(MetaTensor(volumes[item : item + 1], affine=affines[item]), Mirror())
        for result in results:
            for key in ("anomaly_map", "anomaly_score"):
                # Equal up to the order of float32 sums, which vectorised kernels choose by size.
                np.testing.assert_allclose(result[key][item], alone[key][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("slice_batch_size", "largest"), [(1, 1), (4, 4), (8, 8), (64, 13)])
def test_the_network_never_sees_more_than_the_slice_batch(slice_batch_size: int, largest: int) -> None:
    network = Mirror()
    AnomalySliceInferer(28, slice_axis=2, slice_batch_size=slice_batch_size)(torch.rand(2, 1, *SHAPE), network)
    sizes = [batch[0] for batch in network.batches]
    assert max(sizes) == largest
    assert sum(sizes) == 2 * 13


def test_metadata_survive_and_batches_can_be_taken_apart() -> None:
    items = [
        {"image": MetaTensor(torch.rand(1, 12, 9, 5), affine=affine_of(name), meta={"filename_or_obj": name})}
        for name in ("RAS", "oblique LPS")
    ]
    batch = list_data_collate(items)
    pred = AnomalySliceInferer(28)(batch["image"], Mirror())
    parts = decollate_batch({**batch, **pred})
    for item, part in zip(items, parts, strict=True):
        assert isinstance(part["anomaly_map"], MetaTensor)
        assert part["anomaly_map"].shape == (1, 12, 9, 5)
        assert part["anomaly_map"].dtype == torch.float32
        torch.testing.assert_close(part["anomaly_map"].affine, item["image"].affine)
        assert part["anomaly_map"].meta["filename_or_obj"] == item["image"].meta["filename_or_obj"]
        assert part["anomaly_score"].shape == (5,)


def test_plain_tensors_stay_plain_and_count_as_ras() -> None:
    volume = torch.rand(1, 1, *SHAPE)
    plain = AnomalySliceInferer(28)(volume, Mirror(ramp=1.0))["anomaly_map"]
    assert type(plain) is torch.Tensor
    torch.testing.assert_close(
        plain, AnomalySliceInferer(28)(MetaTensor(volume), Mirror(ramp=1.0))["anomaly_map"].as_tensor()
    )


@pytest.mark.parametrize("shape", [(20, 14, 1), (20, 1, 14), (1, 20, 14)])
def test_a_volume_of_one_slice(shape: tuple[int, int, int]) -> None:
    result = AnomalySliceInferer(28, sigma=0)(torch.rand(1, 1, *shape), Mirror())
    assert result["anomaly_map"].shape == (1, 1, *shape)
    assert result["anomaly_score"].shape == (1, 1)


def test_wrapped_networks_and_extra_arguments() -> None:
    frames = torch.rand(2, 3, 28, 28)
    bare = AnomalySliceInferer(28, sigma=0)(frames, Mirror())
    wrapped = AnomalySliceInferer(28, sigma=0)(frames, torch.nn.DataParallel(Mirror()), shift=0.25)
    torch.testing.assert_close(wrapped["anomaly_map"], bare["anomaly_map"] + 0.25)

    class NotAModule:
        predict = staticmethod(Mirror().predict)

    torch.testing.assert_close(AnomalySliceInferer(28, sigma=0)(frames, NotAModule()), bare)


def test_no_gradients_are_recorded_and_inference_mode_works() -> None:
    volume = torch.rand(1, 1, 12, 9, 5)
    result = AnomalySliceInferer(28)(volume, Mirror())
    assert not result["anomaly_map"].requires_grad
    assert not result["anomaly_score"].requires_grad
    with torch.inference_mode():
        again = AnomalySliceInferer(28)(volume, Mirror())
    torch.testing.assert_close(again, result)


def test_half_precision_networks_give_float32() -> None:
    class Half(Mirror):
        def predict(self, images: torch.Tensor, shift: float = 0.0) -> dict[str, torch.Tensor]:
            return {key: value.bfloat16() for key, value in super().predict(images, shift).items()}

    result = AnomalySliceInferer(28)(torch.rand(1, 3, 28, 28), Half())
    assert {value.dtype for value in result.values()} == {torch.float32}


def test_progress_bar(capfd: pytest.CaptureFixture[str]) -> None:
    AnomalySliceInferer(28)(torch.rand(2, 3, 28, 28), Mirror())
    assert capfd.readouterr().err == ""
    AnomalySliceInferer(28, progress=True)(torch.rand(2, 3, 28, 28), Mirror())
    assert "/2" in capfd.readouterr().err
    AnomalySliceInferer(28, progress=True)(torch.rand(1, 3, 28, 28), Mirror())
    assert capfd.readouterr().err == ""  # a frame is too short for a bar of its own


@pytest.mark.parametrize("channels", [1, 3])
def test_native_stacks_are_scored_frame_by_frame_as_stored(channels: int) -> None:
    frames = torch.rand(5, channels, 8, 6)
    stack = frames.permute(1, 3, 2, 0)[None]  # (1, C, X, Y, Z)
    mirrored = torch.diag(torch.tensor([-1.0, -2.0, 0.5, 1.0], dtype=torch.float64))  # as if sagittal and flipped
    inputs = MetaTensor(stack, affine=mirrored, meta={"native_slices": torch.tensor([1])})
    result = AnomalySliceInferer((8, 6), sigma=0, slice_batch_size=2)(inputs, Mirror(ramp=1.0))
    ramp = torch.arange(8)[:, None] + 100 * torch.arange(6)
    expected = frames[:, 0] + ramp
    assert result["anomaly_map"].shape == (1, 1, 6, 8, 5)
    torch.testing.assert_close(result["anomaly_map"].as_tensor()[0, 0].permute(2, 1, 0), expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(result["anomaly_score"][0], expected.amax(dim=(1, 2)), atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    "shape",
    [(3, 28, 28), (1, 2, 28, 28), (1, 4, 28, 28), (1, 3, 28, 28, 1), (1, 3, 8, 8, 8), (1, 1, 0, 8, 8), (28, 28)],
)
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected frames .* got shape"):
        AnomalySliceInferer(28)(torch.zeros(shape), Mirror())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.full((1, 3, 8, 8), 200.0), r"got \[200, 200\]"),
        (torch.full((1, 1, 8, 8, 8), -0.5), r"got \[-0\.5, -0\.5\]"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int16), "int16"),
    ],
)
def test_wrong_values_are_refused(inputs: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnomalySliceInferer(28)(inputs, Mirror())


def test_volumes_of_one_batch_cut_into_different_numbers_of_slices_are_refused() -> None:
    affines = torch.stack([affine_of("RAS"), affine_of("RSA")])
    with pytest.raises(ValueError, match=r"\[13, 23\] slices.*batch size of 1"):
        AnomalySliceInferer(28)(MetaTensor(torch.rand(2, 1, *SHAPE), affine=affines), Mirror())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size"),
        ({"slice_axis": 3}, "slice_axis"),
        ({"slice_axis": "axial"}, "slice_axis"),
        ({"slice_batch_size": 0}, "slice_batch_size"),
        ({"sigma": -1.0}, "sigma"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnomalySliceInferer(**arguments)


def test_prompts_are_fixed_for_all_batches_of_a_volume_and_no_longer() -> None:
    class Prompted(Mirror):
        events: ClassVar[list[str]] = []

        @contextmanager
        def fixed_prompts(self) -> Iterator[None]:
            self.events.append("fixed")
            yield
            self.events.append("free")

        def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            self.events.append("predict")
            return super().predict(images)

    AnomalySliceInferer(28, slice_axis=2, slice_batch_size=10)(torch.rand(1, 1, 8, 9, 25), Prompted())
    assert Prompted.events == ["fixed", "predict", "predict", "predict", "free"]


def test_stored_levels_give_the_same_numbers_as_their_fractions() -> None:
    levels = torch.randint(0, 256, (2, 3, 20, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    inferer = AnomalySliceInferer(image_size=8, sigma=1.0)
    stored, fractions = inferer(levels, Mirror()), inferer(levels.float() / 255, Mirror())
    assert torch.equal(stored["anomaly_map"], fractions["anomaly_map"])
    assert torch.equal(stored["anomaly_score"], fractions["anomaly_score"])


def test_pictures_of_different_sizes_together_are_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures: list[torch.Tensor] = [
        torch.rand((channels, *size), generator=generator)
        for channels, size in [(3, (20, 30)), (1, (9, 7)), (3, (8, 8))]
    ]
    pictures[1] = MetaTensor(pictures[1], meta={"kind": "frame"})
    inferer = AnomalySliceInferer(image_size=8, sigma=1.0)
    for picture, found in zip(pictures, inferer.together(pictures, Mirror()), strict=True):
        alone = inferer(picture[None], Mirror())
        assert found.keys() == alone.keys()
        for name, value in found.items():
            assert value.shape == alone[name].shape
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(alone[name]))
        assert isinstance(found["anomaly_map"], MetaTensor) == isinstance(picture, MetaTensor)


class Small(Mirror):
    """A network whose device has room for three images."""

    def predict(self, images: torch.Tensor, shift: float = 0.0) -> dict[str, torch.Tensor]:
        if len(images) > 3:
            self.batches.append(tuple(images.shape))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().predict(images, shift)


def test_too_little_memory_halves_the_batch_for_good(caplog: pytest.LogCaptureFixture) -> None:
    volume = torch.rand((1, 1, 10, 10, 19), generator=torch.Generator().manual_seed(0))
    network = Small()
    inferer = AnomalySliceInferer(image_size=8, sigma=0, slice_axis=2, slice_batch_size=8)
    found = inferer(volume, network)
    expected = AnomalySliceInferer(image_size=8, sigma=0, slice_axis=2)(volume, Mirror())
    assert torch.equal(found["anomaly_map"], expected["anomaly_map"])
    assert torch.equal(found["anomaly_score"], expected["anomaly_score"])
    assert [shape[0] for shape in network.batches] == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    assert [record.message for record in caplog.records] == [
        "8 images at once do not fit into the device's memory: 4 now.",
        "4 images at once do not fit into the device's memory: 2 now.",
    ]


def test_one_slice_that_does_not_fit_is_an_error() -> None:
    class Full(Mirror):
        def predict(self, images: torch.Tensor, shift: float = 0.0) -> dict[str, torch.Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        AnomalySliceInferer(image_size=8, slice_batch_size=4)(torch.rand(4, 3, 8, 8), Full())
