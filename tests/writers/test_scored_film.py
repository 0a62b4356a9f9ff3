# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_anomalyclip.writers.cine import CINE_RESULTS, CineWriter
from monai_anomalyclip.writers.findings import Findings
from monai_anomalyclip.writers.overlays import overlay
from monai_anomalyclip.writers.scored_film import ScoredCine
from monai_anomalyclip.writers.slice_pictures import montage

av = pytest.importorskip("av", reason="PyAV is not installed")

COUNT = 17
SIZE = (24, 32)
TIMES = [0.2 * index for index in range(COUNT)]


def film() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames, maps, masks and scores; frame i is all of the gray 10 + 10 i."""
    generator = np.random.default_rng(0)
    frames = np.broadcast_to(10 + 10 * np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, *SIZE, 3)).copy()
    maps = generator.random((COUNT, *SIZE), dtype=np.float32)
    return frames, maps, maps >= 0.9, generator.permutation(np.linspace(0.1, 0.9, COUNT))


def in_parts(folder: Path, *sizes: int) -> ScoredCine:
    cine = ScoredCine(folder, "f", SIZE, TIMES, 5, 0.9)
    start = 0
    for size in sizes:
        frames, maps, masks, scores = (values[start : start + size] for values in film())
        cine.add(frames, maps, masks, Findings.of(scores, maps, masks))
        start += size
    return cine


def painted(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The overlays as they go to the encoder: from the same pixels x264 now and then makes other bytes."""
    pictures: list[np.ndarray] = []

    def spy(*arguments: Any, **options: Any) -> np.ndarray:
        pictures.append(overlay(*arguments, **options))
        return pictures[-1]

    monkeypatch.setattr("monai_anomalyclip.writers.cine.overlay", spy)
    return pictures


def shown_at(path: Path) -> list[float]:
    with av.open(path) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def test_parts_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, maps, masks, scores = film()
    pictures = painted(monkeypatch)
    results = [in_parts(tmp_path / name, *sizes).close() for name, sizes in (("a", (17,)), ("b", (5, 1, 8, 3)))]
    reference = CineWriter(tmp_path / "c", "f", SIZE, TIMES, 5, threshold=0.9)
    reference.add(frames, maps, masks, scores)
    alone = reference.close()
    whole, parts, direct = (pictures[start : start + COUNT] for start in range(0, 3 * COUNT, COUNT))
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(direct, parts)
    assert len({picture.tobytes() for picture in parts}) == COUNT
    for path, table, *_ in (results[0][0], results[1][0], alone):
        assert shown_at(path) == pytest.approx(TIMES, abs=1e-4)
        assert table.read_bytes() == alone[1].read_bytes()
    np.testing.assert_array_equal(results[0][2], results[1][2])
    findings = results[1][1]
    np.testing.assert_array_equal(findings.scores, scores)
    np.testing.assert_allclose(findings.map_max, maps.max(axis=(1, 2)))
    np.testing.assert_allclose(findings.area_fraction, masks.mean(axis=(1, 2)))
    assert [path.name for path in results[0][0]] == [*(f"f{suffix}" for suffix in CINE_RESULTS), "f_worst.jpg"]
    with results[1][0][1].open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [float(row["anomaly_score"]) for row in rows] == pytest.approx(list(scores), abs=1e-6)


def shown(cine: ScoredCine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Number and label of each frame on the picture, told by the frames' gray."""
    calls = []

    def spy(*arguments: Any, **options: Any) -> np.ndarray:
        calls.append((*arguments, options["labels"]))
        return montage(*arguments, **options)

    monkeypatch.setattr("monai_anomalyclip.writers.scored_film.montage", spy)
    picture = cine.close()[2]
    assert picture.ndim == 3
    ((volume, heat, mask, view, labels),) = calls
    numbers = [(int(gray) - 10) // 10 for gray in volume[0, 0, 0]]
    frames, maps, masks, _ = film()
    for place, number in enumerate(numbers):
        np.testing.assert_array_equal(view.to_slices(volume)[place].permute(1, 2, 0).numpy(), frames[number])
        np.testing.assert_array_equal(view.to_slices(heat)[place, 0].numpy(), maps[number])
        np.testing.assert_array_equal(view.to_slices(mask)[place, 0].numpy(), masks[number])
    return list(zip(numbers, labels, strict=True))


def test_picture_shows_the_six_frames_of_the_highest_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = film()[3]
    frames = shown(in_parts(tmp_path, 4, 4, 9), monkeypatch)
    assert [number for number, _ in frames] == sorted(np.argsort(-scores)[:6].tolist())
    for number, label in frames:
        assert label == f"{TIMES[number]:.1f} s    score {scores[number]:.2f}"


@pytest.mark.parametrize("known", [True, False])
def test_equal_scores_are_told_apart_as_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """By the margins where the network gives them, else by the highest value of the map."""
    frames, maps, masks, margins = film()
    cine = ScoredCine(tmp_path, "f", SIZE, TIMES, 5, 0.9)
    for start in range(0, COUNT, 4):
        part = slice(start, start + 4)
        given = margins[part] if known else None
        found = Findings.of(np.ones(len(frames[part])), maps[part], masks[part], given)
        cine.add(frames[part], maps[part], masks[part], found)
    assert cine.findings is not None
    expected = np.argsort(-(margins if known else maps.max(axis=(1, 2))))[:6].tolist()
    assert [peak.index for peak in cine.findings.peaks()] == expected
    assert [number for number, _ in shown(cine, monkeypatch)] == sorted(expected)


def test_a_film_that_ends_early_is_cut_off(tmp_path: Path) -> None:
    cine = in_parts(tmp_path, 8, 8)
    (path, *_), findings, _ = cine.close()
    assert cine.written == len(findings.scores) == 16
    assert cine.times == pytest.approx(TIMES[:16])
    assert shown_at(path) == pytest.approx(TIMES[:16], abs=1e-4)


def test_a_film_without_frames_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Only 0 of 17 frames were given"):
        in_parts(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    cine = in_parts(tmp_path, 8)
    assert list(tmp_path.iterdir())
    cine.abort()
    cine.abort()
    assert list(tmp_path.iterdir()) == []
