# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_anomalyclip.app.findings import Decision, Review, StaleReviewError, find_regions
from tests.app.conftest import Scored


def test_regions_are_those_of_the_mask(scored: Callable[[], Scored]) -> None:
    _, study, masks = scored()
    for name, state in study.states().items():
        assert state is not None
        found = find_regions(study.results, state)
        assert found.labels is not None
        assert np.array_equal(found.labels > 0, masks[name])
        if masks[name].ndim == 3:
            first, second = found.regions
            assert (first.number, first.slice, first.first, first.last, first.voxels) == (1, 3, 3, 3, 30)
            assert (second.number, second.first, second.last, second.voxels) == (2, 1, 2, 100)
            assert first.map_max is not None
            assert abs(first.map_max - 0.9) < 1e-3
            assert found.labels[first.voxel] == 1
            assert state.record is not None
            total = sum(region.volume_ml or 0 for region in found.regions)
            assert abs(total - (state.record.anomalous_volume_ml or 0)) < 1e-3
        else:
            (only,) = found.regions
            assert (only.voxels, only.volume_ml, only.slice) == (54, None, 0)


def test_an_input_without_a_mask_is_one_finding(scored: Callable[[], Scored]) -> None:
    _, study, _ = scored()
    state = next(state for state in study.states().values() if state and state.record and state.record.frames > 1)
    assert state.record is not None
    outputs = tuple(path for path in state.record.outputs if not path.endswith(".nii.gz"))
    bare = state.model_copy(update={"record": state.record.model_copy(update={"outputs": outputs})})
    found = find_regions(study.results, bare)
    assert [region.number for region in found.regions] == [0]
    assert found.labels is None


def test_an_empty_mask_has_no_findings(scored: Callable[[], Scored]) -> None:
    _, study, masks = scored()
    for name, mask in masks.items():
        if mask.ndim == 3:
            path = study.results / f"{name}_mask.nii.gz"
            nib.save(nib.Nifti1Image(np.zeros(mask.shape, np.uint8), nib.load(path).affine), path)
        else:
            Image.fromarray(np.zeros(mask.shape, np.uint8)).save(study.results / f"{name}_mask.png")
        state = study.state(name)
        assert state is not None
        found = find_regions(study.results, state)
        assert (found.regions, found.others) == ([], 0)
        assert found.labels is not None
        assert found.labels.shape == mask.shape
        assert not found.labels.any()


def test_decisions_are_kept_and_bound_to_the_mask(scored: Callable[[], Scored], tmp_path: Path) -> None:
    _, study, _ = scored()
    state = next(iter(study.states().values()))
    assert state is not None
    review = Review(tmp_path / "review.json")
    yes, no = Decision(verdict="accepted", note="seen"), Decision(verdict="rejected")
    first = review.decide(state, 1, yes, review.revision)
    review.decide(state, 2, no, first)
    again = Review(tmp_path / "review.json")
    assert again.decisions(state) == {1: yes, 2: no}
    # Another tab, which has not seen it, changes neither it nor its note; it may decide the same, or something else.
    with pytest.raises(StaleReviewError, match="another tab"):
        again.decide(state, 1, no, 0)
    again.decide(state, 1, yes, 0)
    again.decide(state, 3, no, 0)
    # Another mask of the same input was never reviewed.
    files = tuple(file.model_copy(update={"sha256": "0" * 64}) for file in state.files)
    assert again.decisions(state.model_copy(update={"files": files})) == {}


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "review.json").write_text("{")
    assert Review(tmp_path / "review.json").revision == 0
    assert (tmp_path / "review_damaged.json").read_text() == "{"
