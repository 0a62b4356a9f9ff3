# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import combine_pvalues

from monai_anomalyclip.reference import allowed_rule, fuse, measure_gain
from monai_anomalyclip.reference.fusion import fused_text, fusion_path

NORMALS = SimpleNamespace(digest=lambda: "n")


def test_fisher_is_scipys_and_the_mean_is_geometric() -> None:
    for pair in ([0.1, 0.3], [1.0, 0.5], [0.02, 0.9]):
        assert 1 - fuse(pair) == pytest.approx(combine_pvalues(pair, method="fisher").pvalue)
        assert fuse(pair, "geometric") == pytest.approx(np.sqrt(np.prod(1 - np.array(pair))), abs=1e-6)
    with pytest.raises(ValueError, match="There is no rule 'mean'"):
        fuse([0.1, 0.2], "mean")
    with pytest.raises(ValueError, match="above 0 and are at most 1"):
        fuse([0.0, 0.2])


class Both:
    """Says of image i the p-values that it was given."""

    normals = NORMALS
    inferer = SimpleNamespace(reference=SimpleNamespace(bank_digest="b"))

    def __init__(self, pairs: list[tuple[float | None, float | None]]) -> None:
        self.pairs = pairs

    def __call__(self, image: int) -> Any:
        methods = zip(("anomalyclip", "reference"), self.pairs[image], strict=True)
        return SimpleNamespace(
            compared=[SimpleNamespace(method=method, p_value=p) for method, p in methods], warnings=("Why.",)
        )


def measured(folder: Path, helpful: bool, count: int = 40) -> dict[str, Any]:
    """Both see half of what there is, or one sees it all and the other nothing."""
    rng = np.random.default_rng(4)
    labels = [0] * count + [1] * count
    seen = rng.random((2 * count, 2)) + 1e-3
    for index, label in enumerate(labels):
        if label and helpful:
            seen[index] *= rng.permutation([0.05, 0.8])
        elif label:
            seen[index, 0] *= 0.02
    pairs = [(float(min(a, 1)), float(min(b, 1))) for a, b in seen]
    entries = [{"image": index, "image_label": label} for index, label in enumerate(labels)]
    return measure_gain(Both(pairs), entries, folder / "a.reference")


def test_a_gain_allows_and_a_loss_refuses(tmp_path: Path) -> None:
    content = measured(tmp_path, helpful=True)
    assert "fisher" in content["gained"]
    assert json.loads(fusion_path(tmp_path / "a.reference").read_text()) == content
    assert allowed_rule("fisher", tmp_path / "a.reference", NORMALS, "b") == "fisher"
    with pytest.raises(ValueError, match="another network, calibration or bank"):
        allowed_rule("fisher", tmp_path / "a.reference", NORMALS, "other")
    assert measured(tmp_path, helpful=False)["gained"] == []
    with pytest.raises(ValueError, match=r"Fusing by fisher did not gain .* \(AUROC [+-]0"):
        allowed_rule("fisher", tmp_path / "a.reference", NORMALS, "b")


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.reference"
    assert allowed_rule(None, path, None, "b") is None
    with pytest.raises(ValueError, match="Nothing says that fusing helps"):
        allowed_rule("fisher", path, NORMALS, "b")
    with pytest.raises(ValueError, match="calibrate it on normals"):
        allowed_rule("fisher", path, None, "b")
    with pytest.raises(ValueError, match="There is no rule 'mean' of fusion: fisher and geometric are known"):
        allowed_rule("mean", path, NORMALS, "b")
    for text in ("{}", '{"format": "something else", "made_with": ["n", "b"], "gained": [], "gain": {"fisher": 1}}'):
        fusion_path(path).write_text(text)
        with pytest.raises(ValueError, match="holds no measurement"):
            allowed_rule("fisher", path, NORMALS, "b")
    with pytest.raises(ValueError, match="cannot be told from 5 normal and 5 abnormal"):
        measured(tmp_path, helpful=True, count=5)
    with pytest.raises(ValueError, match=r"has not both p-values: Why\."):
        measure_gain(Both([(None, 0.5)]), [{"image": 0, "image_label": 0}], path)


def test_text_for_the_record() -> None:
    compared = json.dumps([{"method": "anomalyclip", "p_value": 0.1}, {"method": "reference", "p_value": 0.2}])
    assert json.loads(fused_text(compared, "fisher"))["score"] == pytest.approx(float(fuse([0.1, 0.2])))
    assert fused_text(compared, None) == ""
    assert fused_text(json.dumps([{"method": "reference", "p_value": 0.2}]), "fisher") == ""
