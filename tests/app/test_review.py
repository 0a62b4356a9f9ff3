# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_anomalyclip.app.review import Decision, Review, StaleReviewError
from tests.app.conftest import Scored


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
