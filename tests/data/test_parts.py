# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from monai_anomalyclip.data.parts import Part, parse_part


def test_parts_are_disjoint_complete_and_of_like_size() -> None:
    groups = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(8000)]
    for count in (1, 3, 8):
        holders = [[part for part in range(1, count + 1) if Part(part, count).holds(group)] for group in groups]
        assert all(len(found) == 1 for found in holders)
        sizes = Counter(found[0] for found in holders)
        assert max(sizes.values()) < 1.15 * len(groups) / count


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4 ", "1.5/4", "auto/x", "1/9999999", ""])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(ValueError, match=r"[Pp]art"):
        parse_part(text, {"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("3/8", {"RANK": "0", "WORLD_SIZE": "2"}, "3/8"),
        ("auto", {"RANK": "0", "WORLD_SIZE": "2"}, "1/2"),
        ("auto", {"RANK": "1", "WORLD_SIZE": "2", "SLURM_ARRAY_TASK_ID": "7"}, "2/2"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "0"}, "4/4"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, "3/4"),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "11", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5",
                "SLURM_ARRAY_TASK_MAX": "14", "SLURM_ARRAY_TASK_STEP": "3",
            },
            "3/4",
        ),
        # Some tasks of an array are run again.
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "3"}, "7/8"),
        ("auto/8", {"JOB_COMPLETION_INDEX": "0"}, "1/8"),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, "8/8"),
    ],
)  # fmt: skip
def test_parts_of_schedulers(text: str, environment: dict[str, str], part: str) -> None:
    assert str(parse_part(text, environment)) == part


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("auto", {}, "finds no RANK"),
        ("auto", {"RANK": "0"}, "needs WORLD_SIZE"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "give --part auto/N"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3"}, "needs SLURM_ARRAY_TASK_COUNT"),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "3",
                "SLURM_ARRAY_TASK_MAX": "7",
            },
            "are not a range",
        ),
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "9"}, "Part 9 of 8 does not exist"),
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "0"}, "Part 0 of 8 does not exist"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "needs RANK"),
    ],
)  # fmt: skip
def test_what_the_environment_does_not_tell(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_part(text, environment)
