# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from PIL import Image

from monai_anomalyclip import Predictor, predict
from monai_anomalyclip.reference import CompareWithNormalsd, NormalScores, score_calibration


def picture(seed: int, side: int = 12, **meta: Any) -> MetaTensor:
    values = torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, meta={"kind": "frame", "intensity": '{"preset": "none"}', **meta})


def scores_of(margins: list[float]) -> NormalScores:
    scores = NormalScores("m")
    for seed, margin in enumerate(margins):
        assert scores.add(picture(seed), torch.tensor([margin]))
    return scores


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    (one,) = json.loads(found["compared"][0])
    return dict(one)


def test_p_value_by_hand() -> None:
    scores = scores_of([1.0, 2.0, 3.0, 4.0])
    found = scores.compare(picture(99), torch.tensor([[3.0]]))
    assert found["p_value"].item() == pytest.approx((1 + 2) / 5)
    told = numbers(found)
    assert "Compared with your 4 normal images, p = 0.6" in told.pop("says")
    assert told == {
        "method": "anomalyclip", "score": 3.0, "p_value": pytest.approx(0.6), "k": 4, "smallest_p": pytest.approx(0.2)
    }  # fmt: skip
    assert "4 normals are few" in found["doubts"][0]
    floor = scores.compare(picture(99), torch.tensor([9.0]))
    assert "smallest value that 4 allow" in numbers(floor)["says"]


def test_three_normals_only_rank() -> None:
    found = scores_of([1.0, 2.0, 3.0]).compare(picture(99), torch.tensor([9.0]))
    assert math.isnan(found["p_value"].item())
    assert numbers(found)["p_value"] is None
    assert "only ranks" in numbers(found)["says"]


def test_the_highest_slice_counts_and_the_number_of_slices_is_said() -> None:
    scores = NormalScores("m")
    for seed in range(5):
        volume = MetaTensor(torch.rand(1, 4, 4, 6), meta={"kind": "volume"})
        scores.add(volume, torch.tensor([0.0, float(seed), -3.0]))
    found = scores.compare(MetaTensor(torch.rand(1, 4, 4, 6), meta={"kind": "volume"}), torch.tensor([-1.0, 3.0, 2.0]))
    assert found["p_value"].item() == pytest.approx((1 + 2) / 6)
    assert "slices" not in found["doubts"][0]
    many = scores.compare(MetaTensor(torch.rand(1, 4, 4, 6), meta={"kind": "volume"}), torch.arange(9.0))
    assert "It has 9 slices and the normals 3 to 3" in many["doubts"][0]


@pytest.mark.parametrize("changed", [{"kind": "cine"}, {"intensity": '{"preset": "ct-brain"}'}])
def test_another_kind_or_preset_has_no_p_value(changed: dict[str, str]) -> None:
    found = scores_of([1.0, 2.0, 3.0, 4.0]).compare(picture(99, **changed), torch.tensor([9.0]))
    assert math.isnan(found["p_value"].item())
    assert "has no p-value" in found["doubts"][0]
    assert numbers(found)["k"] == 0


def test_own_image_and_patient_are_left_out_and_said() -> None:
    scores = NormalScores("m")
    for seed in range(6):
        scores.add(picture(seed), torch.tensor([float(seed)]), f"patient {seed // 2}")
    same = scores.compare(picture(4), torch.tensor([4.0]))
    assert numbers(same)["k"] == 2
    assert "is one of the normals" in same["doubts"][0]
    patient = scores.compare(picture(50, patient="2"), torch.tensor([4.0]))
    assert numbers(patient)["k"] == 2
    assert "inputs of this patient" in patient["doubts"][0]
    other = scores.compare(picture(50, patient="9"), torch.tensor([4.0]))
    assert numbers(other)["k"] == 3
    assert not scores.add(picture(0), torch.tensor([7.0]))  # known


def test_size_brightness_and_modality_are_said() -> None:
    scores = NormalScores("m")
    for seed in range(5):
        scores.add(picture(seed, modality="CT"), torch.tensor([0.0]))
    odd = MetaTensor(torch.ones(3, 40, 40), meta={**picture(1).meta, "modality": "MR"})
    said = scores.compare(odd, torch.tensor([0.0]))["doubts"][0]
    assert "Its modality is MR" in said
    assert "Its size, 40 x 40" in said
    assert "mean gray value, 1.00" in said


def test_exchangeable_scores_are_flagged_at_the_nominal_rate() -> None:
    """Oracle: the exact distribution, each rank among 10 equally likely."""
    generator = np.random.default_rng(3)
    image = picture(99)
    flagged = 0
    for _ in range(200):
        draw = generator.normal(size=10).tolist()
        flagged += numbers(scores_of(draw[:9]).compare(image, torch.tensor([draw[9]])))["p_value"] <= 0.2 + 1e-9
    assert abs(flagged / 200 - 0.2) <= 3 * (0.2 * 0.8 / 200) ** 0.5


def test_round_trip_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of([1.0, 2.0, 3.0, 4.0])
    scores.save(tmp_path / "a.json")
    again = NormalScores.load(tmp_path / "a.json")
    assert again.digest() == scores.digest()
    assert (
        again.compare(picture(9), torch.tensor([2.5]))["compared"]
        == scores.compare(picture(9), torch.tensor([2.5]))["compared"]
    )
    content = json.loads((tmp_path / "a.json").read_text())
    bad = [
        {}, [], {**content, "format": "x"}, {**content, "salt": "zz"}, {**content, "normals": 3},
        {**content, "normals": [{**content["normals"][0], "score": float("nan")}]},
        {**content, "normals": [{**content["normals"][0], "size": [0, 1]}]},
        {**content, "normals": [{**content["normals"][0], "more": 1}]},
    ]  # fmt: skip
    for number, one in enumerate(bad):
        (tmp_path / f"{number}.json").write_text(json.dumps(one))
        with pytest.raises(ValueError, match=r"holds no scores of normals: remove it and calibrate again"):
            NormalScores.load(tmp_path / f"{number}.json")
    monkeypatch.setattr(score_calibration, "_MOST_BYTES", 10)  # a file of any size is not read into memory
    with pytest.raises(ValueError, match=r"'a.json' holds no scores of normals"):
        NormalScores.load(tmp_path / "a.json")


@pytest.mark.parametrize("margin", [float("nan"), float("inf")])
def test_margins_of_normals_are_finite(margin: float) -> None:
    with pytest.raises(ValueError, match="margins that are not finite"):
        NormalScores("m").add(picture(1), torch.tensor([margin, 0.0]))


def test_transform_without_normals_changes_nothing() -> None:
    item = {"image": picture(1), "anomaly_margin": torch.tensor([1.0])}
    assert CompareWithNormalsd(normals=None)(item) == item
    with_reference = {**item, "compared": '[{"method": "reference"}]', "doubts": "behind"}
    found = CompareWithNormalsd(normals=scores_of([0.0] * 4))(with_reference)
    assert [one["method"] for one in json.loads(found["compared"])] == ["anomalyclip", "reference"]
    assert found["doubts"].endswith("behind")


@pytest.fixture
def normals(tmp_path: Path) -> Path:
    folder = tmp_path / "normals"
    folder.mkdir()
    for seed in range(9):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_command_predictor_and_later_runs(
    face_bundle: Path, copy_bundle: Any, normals: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Oracle: margins of the normals by a predictor, counted by hand."""
    bundle = copy_bundle(tmp_path / "b")
    prompts = bundle / "models" / "model.pt"
    prompts.write_bytes((face_bundle / "models" / "model.pt").read_bytes())
    image = tmp_path / "in" / "x.png"
    image.parent.mkdir()
    Image.fromarray(np.random.default_rng(50).integers(0, 200, (40, 60, 3), dtype=np.uint8)).save(image)
    plain = Predictor(bundle, device="cpu", precision="float32")
    before = plain(image)
    assert before.p_value is None
    document = predict(
        image, tmp_path / "out", bundle, calibrate_on=normals, device="cpu", precision="float32", threshold=0.5
    )
    assert any("broken" in text or "left out" in text for text in caplog.messages)
    (record,) = document.inputs
    margins = [float(plain(path).margins[0]) for path in sorted(normals.glob("[0-9].png"))]  # type: ignore[index]
    wanted = (1 + sum(one >= record.score_margin for one in margins)) / 10  # type: ignore[operator]
    assert record.p_value == pytest.approx(wanted, abs=1e-6)
    assert record.anomaly_score == pytest.approx(before.anomaly_score, abs=1e-6)
    (compared,) = record.compared
    assert (compared.method, compared.k, compared.smallest_p) == ("anomalyclip", 9, 0.1)
    assert "AnomalyCLIP among normals" in (tmp_path / "out" / "report.html").read_text()
    later = Predictor(bundle, device="cpu", precision="float32")(image)
    assert later.p_value == pytest.approx(wanted)
    again = predict(image, tmp_path / "again", bundle, device="cpu", precision="float32")
    assert again.inputs[0].p_value == pytest.approx(wanted, abs=1e-6)
    state = torch.load(prompts, weights_only=True)
    name = next(iter(state))
    state[name] = state[name] + 0.01
    torch.save(state, prompts)
    with caplog.at_level(logging.WARNING, logger="monai_anomalyclip"):
        assert Predictor(bundle, device="cpu", precision="float32")(image).p_value is None
    assert "measured with another network or other prompts" in caplog.text
