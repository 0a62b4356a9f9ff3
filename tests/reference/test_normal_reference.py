# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.distance import cdist
from torch import Tensor

from monai_anomalyclip.reference import NormalImage, NormalReference, PatchEncoder, bank_growth, volume_p_value
from monai_anomalyclip.reference.reference_file import read_reference

Pictures = Callable[..., list[Tensor]]
Make = Callable[..., PatchEncoder]


def spotted(image: Tensor) -> Tensor:
    """The picture with a bright square."""
    spot = image.clone()
    spot[:, 8:22, 10:26] = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    return spot


def farthest(distances: np.ndarray) -> float:
    return float(np.sort(distances)[-1:].mean())  # 5 % of 16 patches: one


def test_score_and_p_by_hand(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    """Oracle: scipy's distances between all images, the image being one of them for the others' scores."""
    normals, image = pictures(6), pictures(1, seed=9)[0]
    found = NormalReference.build(normals, encoder=small_encoder).score(image)
    features = [small_encoder(one[None])[0].half().double().numpy() for one in [*normals, image]]
    scale = 2 * np.sqrt(2)
    scores = []
    for own, one in enumerate(features):
        others = np.concatenate([other for place, other in enumerate(features) if place != own])
        scores.append(cdist(one, others).min(1) / scale)
    assert found.patch_map.flatten().numpy() == pytest.approx(scores[-1], abs=2e-3)
    assert found.score == pytest.approx(farthest(scores[-1]), abs=2e-3)
    assert found.calibration.scores == pytest.approx([farthest(one) for one in scores[:-1]], abs=2e-3)
    at_least = sum(farthest(one) >= farthest(scores[-1]) for one in scores[:-1])
    assert found.p_value == pytest.approx((1 + at_least) / 7)
    assert (found.k, found.smallest_p) == (6, pytest.approx(1 / 7))


def test_what_is_odd_is_far_and_its_place_shown(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    reference = NormalReference.build(pictures(12), encoder=small_encoder)
    plain = pictures(1, seed=9)[0]
    found, normal = reference.score(spotted(plain)), reference.score(plain)
    assert found.score > normal.score
    assert found.p_value == pytest.approx(1 / 13)
    assert "smallest value that 12 allow" in found.sentence
    assert found.anomaly_map.shape == (1, 40, 48)
    inside, outside = found.anomaly_map[0, 12:18, 14:22], found.anomaly_map[0, 30:, 36:]
    assert float(inside.min()) > float(outside.max())
    assert 0 <= float(found.anomaly_map.min()) <= float(found.anomaly_map.max()) <= 1


def test_a_batch_and_the_networks_form(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    reference = NormalReference.build(pictures(5), encoder=small_encoder)
    images = torch.stack(pictures(3, seed=9))
    one_by_one = [reference.score(image) for image in images]
    assert [one.score for one in reference.score_batch(images)] == [one.score for one in one_by_one]
    predicted = reference.predict(images)
    assert predicted["anomaly_map"].shape == (3, 1, 40, 48)
    assert predicted["anomaly_score"].tolist() == pytest.approx([one.score for one in one_by_one])
    byte = (images * 255).round().to(torch.uint8)
    assert reference.predict(byte)["anomaly_score"].tolist() == pytest.approx(
        [one.score for one in one_by_one], abs=0.01
    )


def test_saved_and_loaded(small_encoder: PatchEncoder, pictures: Pictures, tmp_path: Path) -> None:
    reference = NormalReference.build(pictures(8), encoder=small_encoder, preset="ct-brain")
    reference.save(tmp_path / "my.reference")
    again = NormalReference.load(tmp_path / "my.reference", encoder=small_encoder)
    image = pictures(1, seed=9)[0]
    assert again.score(image).as_dict() == reference.score(image).as_dict()
    assert again.describe() == reference.describe()
    assert again.pixel_threshold(0.05) == reference.pixel_threshold(0.05)


def test_another_encoder_is_refused(make_small_encoder: Make, pictures: Pictures, tmp_path: Path) -> None:
    NormalReference.build(pictures(4), encoder=make_small_encoder()).save(tmp_path / "my.reference")
    with pytest.raises(ValueError, match=r"does not fit this encoder: its encoder's weights have the digest"):
        NormalReference.load(tmp_path / "my.reference", encoder=make_small_encoder(seed=1))
    with pytest.raises(ValueError, match=r"it was made with grid=4, not 5"):
        NormalReference.load(tmp_path / "my.reference", encoder=make_small_encoder(grid=5))
    with pytest.raises(FileNotFoundError, match="made with small: give the file of its weights"):
        NormalReference.load(tmp_path / "my.reference")


def test_another_preset_is_refused(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    def scaled(image: Tensor, preset: str) -> Tensor:
        return MetaTensor(image, meta={"intensity": f'{{"preset": "{preset}"}}'})

    normals = [scaled(one, "ct-brain") for one in pictures(5)]
    reference = NormalReference.build(normals, encoder=small_encoder)
    assert reference.settings["preset"] == "ct-brain"
    image = pictures(1, seed=9)[0]
    assert reference.score(scaled(image, "ct-brain")).score == reference.score(image).score  # unknown passes
    with pytest.raises(ValueError, match="preset ct-bone, the reference's normals with ct-brain"):
        reference.score(scaled(image, "ct-bone"))
    with pytest.raises(ValueError, match=r"is a picture and the reference's normals are volumes .*presets none and"):
        reference.score(scaled(image, "none"))
    with pytest.raises(ValueError, match=r"Normal image 3: .*preset percentile"):
        NormalReference.build([*normals[:2], scaled(image, "percentile")], encoder=small_encoder)


@pytest.mark.parametrize(
    ("normals", "message"),
    [
        ([], "There is no normal image"),
        ([torch.full((3, 9, 9), torch.nan)], "Normal image 1: .*NaN"),
        ([torch.rand(3, 9, 9), torch.rand(5, 9, 9)], "Normal image 2: Expected an image"),
    ],
)
def test_odd_normals_are_refused(small_encoder: PatchEncoder, normals: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NormalReference.build(normals, encoder=small_encoder)


def test_odd_settings_are_refused(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    with pytest.raises(ValueError, match="capacity=47 must be at least 48"):
        NormalReference.build(pictures(1), encoder=small_encoder, capacity=47)
    with pytest.raises(ValueError, match="made alike, not size"):
        NormalReference.build(pictures(1), encoder=small_encoder, alike=["size"])
    with pytest.raises(ValueError, match="2 images but 1 groups"):
        NormalReference.build(pictures(2), encoder=small_encoder, groups=["a"])
    with pytest.raises(ValueError, match="no encoder 'resnet'"):
        NormalReference.build(pictures(1), encoder="resnet")


def test_one_image_ranks_and_nothing_else(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    reference = NormalReference.build(pictures(1), encoder=small_encoder)
    plain = pictures(1, seed=9)[0]
    found = reference.score(spotted(plain))
    assert found.score > reference.score(plain).score
    assert found.p_value is None
    for refused in (reference.rank_normals, lambda: reference.pixel_threshold(0.1)):
        with pytest.raises(ValueError, match="cannot be compared with others"):
            refused()
    with pytest.raises(ValueError, match="there is none to compare it with"):
        reference.score(pictures(1)[0])


def test_an_image_of_the_normals_is_compared_with_the_others(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    normals = pictures(7)
    reference = NormalReference.build(normals, encoder=small_encoder)
    found = reference.score(normals[2])
    rest = NormalReference.build(normals[:2] + normals[3:], encoder=small_encoder).score(normals[2])
    assert found.score == pytest.approx(rest.score)
    assert found.p_value == pytest.approx(rest.p_value)
    assert "shared_image" in found.doubts
    ranked = {one.index: one for one in reference.rank_normals()}
    assert ranked[2].score == pytest.approx(found.score)
    assert ranked[2].p_value == pytest.approx(found.p_value)


def test_patients_are_kept_apart(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    people = pictures(6)
    normals = [one.clone() for one in people for _ in range(3)]  # three nearly equal images each
    for number, one in enumerate(normals):
        one[0, 0, 0] = number % 3 / 100
    groups = [name for name in "abcdef" for _ in range(3)]
    reference = NormalReference.build(normals, encoder=small_encoder, groups=groups)
    assert (reference.n_images, reference.n_groups, reference.calibration.k) == (18, 6, 6)
    alone = NormalReference.build(people, encoder=small_encoder)
    for one in reference.rank_normals():  # as far from other people as if each had one image
        wanted = next(other.score for other in alone.rank_normals() if other.index == one.index // 3)
        assert one.score == pytest.approx(wanted, abs=0.02)
    again = people[0].clone()
    again[0, 0, 0] = 0.05
    assert reference.score(again).score < 0.02
    found = reference.score(again, group="a")
    assert found.score > 0.05
    assert "shared_patient" in found.doubts
    assert found.k == 5
    assert any("18 images come from 6 patients" in note for note in reference.notes())


def test_groups_come_with_images_from_files(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    images = [NormalImage(one, group) for one, group in zip(pictures(4), ("x", "x", None, "y"), strict=True)]
    assert NormalReference.build(iter(images), encoder=small_encoder).n_groups == 3


@pytest.mark.parametrize("coreset", [False, True])
def test_growing_equals_building_at_once(
    coreset: bool, small_encoder: PatchEncoder, pictures: Pictures, tmp_path: Path
) -> None:
    images = pictures(90)
    whole = NormalReference.build(images, encoder=small_encoder, capacity=48, coreset=coreset)
    grown = NormalReference.build(images[:20], encoder=small_encoder, capacity=48, coreset=coreset)
    grown.save(tmp_path / "my.reference")
    grown = NormalReference.load(tmp_path / "my.reference", encoder=small_encoder)
    for start in (20, 55):
        taken = grown.add(images[start - 5 : start + 35])
        assert (taken.new, taken.known) == (35, 5)
    assert grown.describe() == whole.describe()
    for image in pictures(4, seed=9):
        mine, theirs = grown.score(image), whole.score(image)
        assert mine.score == pytest.approx(theirs.score, abs=1e-4)
        assert sorted(mine.calibration.scores) == pytest.approx(sorted(theirs.calibration.scores), abs=1e-4)


def test_memory_is_bounded_and_each_image_encoded_once(
    small_encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,000 normals from a generator: never more than capacity and slack are whole, none is encoded twice."""
    monkeypatch.setattr(bank_growth, "SLACK", 32)
    held: list[int] = []
    encoded: list[int] = []
    real = bank_growth.take_in

    def watched(content: object, features: Tensor, facts: object) -> None:
        real(content, features, facts)  # type: ignore[arg-type]
        held.append(sum(len(one) for one in content.patches))  # type: ignore[attr-defined]

    def counted(images: Tensor) -> list[Tensor]:
        encoded.append(len(images))
        return [images[:, :, ::8, ::8], images[:, :, ::4, ::4]]

    monkeypatch.setattr("monai_anomalyclip.reference.normal_reference.take_in", watched)
    encoder = PatchEncoder(counted, "pixels", image_size=32, grid=4, n_stages=2)

    def images() -> Iterator[Tensor]:
        for seed in range(3000):
            yield torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(seed))

    reference = NormalReference.build(images(), encoder=encoder, capacity=48)
    assert reference.n_images == 3000
    assert max(held) <= (48 + 32 + 1 + 16) * 16  # and the 16 images' worth of thinned ones
    assert sum(encoded) == 3000
    assert reference.calibration.k == 32
    assert reference.describe()["patches"] <= 48 * 16


def test_an_interrupted_build_goes_on(small_encoder: PatchEncoder, pictures: Pictures, tmp_path: Path) -> None:
    images = pictures(30)
    unfinished = tmp_path / "my.reference.unfinished"

    def interrupted() -> Iterator[Tensor]:
        yield from images[:21]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NormalReference.build(interrupted(), encoder=small_encoder, unfinished=unfinished)
    kept = len(read_reference(unfinished).facts)
    assert kept >= 16  # whole batches of eight
    encoded: list[int] = []
    real = small_encoder.forward
    small_encoder.forward = lambda images: (encoded.append(len(images)), real(images))[1]  # type: ignore[method-assign]
    resumed = NormalReference.build(images, encoder=small_encoder, unfinished=unfinished)
    assert sum(encoded) == 30 - kept
    assert resumed.describe() == NormalReference.build(images, encoder=small_encoder).describe()


def test_what_was_begun_otherwise_is_begun_anew(
    small_encoder: PatchEncoder, make_small_encoder: Make, pictures: Pictures, tmp_path: Path
) -> None:
    NormalReference.build(pictures(3), encoder=make_small_encoder(seed=1)).save(tmp_path / "unfinished")
    reference = NormalReference.build(pictures(5), encoder=small_encoder, unfinished=tmp_path / "unfinished")
    assert reference.n_images == 5


def test_images_before_an_odd_one_are_taken_in(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    reference = NormalReference.build(pictures(4), encoder=small_encoder)
    with pytest.raises(ValueError, match="Normal image 4: "):
        reference.add([*pictures(3, seed=5), torch.rand(7, 3, 3), *pictures(1, seed=6)])
    assert reference.n_images == 7
    assert reference.score(pictures(1, seed=9)[0]).k == 7


def test_the_abnormal_one_among_the_normals_comes_first(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    normals = pictures(12)
    normals[7] = 1 - normals[7]
    first, *rest = NormalReference.build(normals, encoder=small_encoder).rank_normals()
    assert first.index == 7
    assert [one.score for one in rest] == sorted((one.score for one in rest), reverse=True)
    assert first.p_value == pytest.approx(1 / 12)
    assert len(rest) == 11


def test_pixel_threshold_is_kept_by_the_normals(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    normals = pictures(10)
    reference = NormalReference.build(normals, encoder=small_encoder)
    strict, loose = reference.pixel_threshold(0.01), reference.pixel_threshold(0.2)
    assert strict > loose
    maps = torch.stack([reference.score(one).anomaly_map for one in normals])  # each without its own help
    assert float((maps >= loose).float().mean()) == pytest.approx(0.2, abs=0.05)
    assert float((maps >= strict).float().mean()) <= 0.02


def test_alike_images_lose_frame_and_brightness(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    normals = [0.2 + 0.8 * one for one in pictures(8)]
    plain = NormalReference.build(normals, encoder=small_encoder)
    alike = NormalReference.build(normals, encoder=small_encoder, alike=["framing", "brightness"])
    image = 0.2 + 0.8 * pictures(1, seed=9)[0]
    framed = torch.zeros(3, 60, 68)
    framed[:, 10:50, 10:58] = 0.5 * image
    assert alike.score(framed).score == pytest.approx(alike.score(image).score, abs=0.03)
    assert plain.score(framed).score > plain.score(image).score + 0.03
    found = alike.score(framed).anomaly_map
    assert found.shape == (1, 60, 68)
    assert float(found[:, :10].max()) == 0
    assert float(found[:, 10:50, 10:58].min()) > 0


def test_nothing_of_the_images_is_told(small_encoder: PatchEncoder, pictures: Pictures, tmp_path: Path) -> None:
    reference = NormalReference.build(pictures(4), encoder=small_encoder, groups=["QUIMBY^R", "ROE^J", None, None])
    reference.save(tmp_path / "my.reference")
    assert b"QUIMBY" not in (tmp_path / "my.reference").read_bytes()
    assert "QUIMBY" not in str(reference.describe()) + str(reference.notes()) + str(vars(reference))


def volume_images(pictures: Pictures, volumes: int, slices: int, seed: int = 5) -> list[NormalImage]:
    images = pictures(volumes * slices, seed=seed)
    return [NormalImage(image, f"volume {place // slices}", "v", place % slices) for place, image in enumerate(images)]


def test_volumes_of_which_slices_were_left_out_need_a_second_look(
    small_encoder: PatchEncoder, pictures: Pictures, tmp_path: Path
) -> None:
    """The farthest of a few kept slices is no measure for the farthest of all."""
    images = volume_images(pictures, 12, 6)  # 72 images, capacity 48
    reference = NormalReference.build(images, encoder=small_encoder, capacity=48)
    assert reference.lacks_group_scores
    others = [reference.score(one) for one in pictures(6, seed=8)]
    assert volume_p_value(others) is None
    reference.score_groups(images)
    assert not reference.lacks_group_scores
    scores = [reference.score(one.image, group=one.group).score for one in images]
    largest = [max(scores[6 * volume : 6 * volume + 6]) for volume in range(12)]
    reference.save(tmp_path / "a.reference")
    loaded = NormalReference.load(tmp_path / "a.reference", encoder=small_encoder)
    others = [loaded.score(one) for one in pictures(6, seed=8)]
    own = max(one.score for one in others)
    assert volume_p_value(others) == pytest.approx((1 + sum(one >= own - 1e-6 for one in largest)) / 13)
    again = [loaded.score(one.image, group=one.group) for one in images[:6]]
    p = volume_p_value(again)
    assert p == pytest.approx((1 + sum(one >= largest[0] - 1e-6 for one in largest[1:])) / 12)


def test_p_values_of_volumes_hold_beyond_the_capacity(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    """Of volumes of the normals' kind a fifth has p <= 0.2; by the kept slices alone more would have."""
    found = []
    for draw in range(8):
        images = volume_images(pictures, 9, 8, seed=draw)  # 72 images, of which 32 are kept whole
        reference = NormalReference.build(images, encoder=small_encoder, capacity=48)
        reference.score_groups(images)
        tests = pictures(10 * 8, seed=1000 + draw)
        for volume in range(10):
            slices = [reference.score(one) for one in tests[8 * volume : 8 * volume + 8]]
            kept = max(slices, key=lambda one: one.score)
            found.append((volume_p_value(slices), kept.calibration.largest_of_each().p_value(kept.score)))
    flagged, by_kept = (sum(p <= 0.2 + 1e-9 for p in ps) for ps in zip(*found, strict=True))
    deviation = (80 * 0.2 * 0.8 + 8 * 100 * 2 * 8 / (100 * 11)) ** 0.5  # binomial, and the spread of references
    assert abs(flagged - 16) <= 3 * deviation
    assert by_kept > flagged


def test_another_modality_is_said(small_encoder: PatchEncoder, pictures: Pictures) -> None:
    normals = [MetaTensor(one, meta={"modality": "CT"}) for one in pictures(5)]
    reference = NormalReference.build(normals, encoder=small_encoder)
    image = pictures(1, seed=9)[0]
    assert "modality" not in reference.score(image).doubts
    assert "modality" not in reference.score(MetaTensor(image, meta={"modality": "CT"})).doubts
    assert "MR" in reference.score(MetaTensor(image, meta={"modality": "MR"})).doubts["modality"]
    assert not any("modalities" in note for note in reference.notes())
    reference.add([MetaTensor(image, meta={"modality": "MR"})])
    assert any("several modalities (CT, MR)" in note for note in reference.notes())
    assert "modality" not in reference.score(MetaTensor(image, meta={"modality": "MR"})).doubts
