# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monai_anomalyclip.app.findings import find_regions
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
