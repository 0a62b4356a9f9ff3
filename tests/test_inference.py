# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip import Predictor, predict
from monai_anomalyclip.bundles.shipped import shipped_folder
from monai_anomalyclip.inference import RunOutcome


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normals": "n", "reference": "r"}, "not both"),
        ({"calibrate_on": "n", "configs": ["more.json"]}, "takes no further configurations"),
        ({"cohort": True, "reference": "r"}, "compared with itself"),
        ({"cohort": True, "part": "1/2"}, "cannot be scored in parts"),
        ({"fuse": "fisher"}, "needs both ways of scoring"),
        ({"bundle": "anomalyclop"}, "There is no bundle at 'anomalyclop'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "n"):
        (tmp_path / folder).mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predict(tmp_path / "in", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_predict_returns_what_is_in_the_folder(face_bundle: Path, noise_picture: Path, tmp_path: Path) -> None:
    """The document of the function, of the run behind it, and of the folder are the same, now and the second time."""
    output = tmp_path / "out"
    document = predict(noise_picture, output, face_bundle, device="cpu", precision="float32")
    outcome = RunOutcome()
    again = predict(noise_picture, output, face_bundle, device="cpu", precision="float32", outcome=outcome)
    assert [record.name for record in document.inputs] == [record.name for record in again.inputs]
    assert document.inputs[0].anomaly_score == again.inputs[0].anomaly_score
    assert outcome == RunOutcome(failed=None, left_out={})


def test_an_overlay_beside_a_network_and_none_in_its_place(face_bundle: Path) -> None:
    """A reference is laid beside AnomalyCLIP's bundle; the bundle of one's own normals holds one already."""
    from monai_anomalyclip.bundles.shipped import beside_overlays

    assert [Path(path).name for path in beside_overlays(face_bundle)] == ["side_by_side.json"]
    assert beside_overlays(None) == beside_overlays("own_normals") == []
    assert beside_overlays(shipped_folder("bundles/own_normals")) == []


def test_the_faces_know_the_same_bundles(tmp_path: Path) -> None:
    """What one refuses the other refuses by the same sentence."""
    said = []
    for face in (lambda: Predictor("no_bundle"), lambda: predict(tmp_path, tmp_path / "out", "no_bundle")):
        with pytest.raises(FileNotFoundError) as caught:
            face()
        said.append(str(caught.value))
    assert said[0] == said[1]
