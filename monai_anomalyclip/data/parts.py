# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which part of a work a process does: K of N, given or from the environment of a scheduler."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Part", "parse_part"]

_MOST = 1_000_000
_WRITTEN = re.compile(r"(auto|\d{1,7})(?:/(\d{1,7}))?")


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) of `count`.

    All inputs of one series, or of one file, are in the same part; every input is in one of them, whichever others
    there are.

    Example:
        >>> Part(2, 4).holds("00000000000000a1")
        True
    """

    number: int
    count: int

    def holds(self, group: str) -> bool:
        """Whether the inputs of a group (hexadecimal digits, see ``Source.group``) belong to this part."""
        return int(group, 16) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_part(text: str, environment: Mapping[str, str] | None = None) -> Part:
    """Read ``K/N``, or find K and N in the environment for ``auto`` and ``auto/N``.

    ``auto`` takes ``RANK`` and ``WORLD_SIZE`` (torchrun), else ``SLURM_ARRAY_TASK_ID`` with ``_COUNT``, ``_MIN`` and
    ``_STEP`` (a Slurm array), else ``JOB_COMPLETION_INDEX`` (an indexed Job of Kubernetes, which does not tell N: give
    ``auto/N``). With ``auto/N``, K is the task's own number: it stays the same when a few tasks of an array are run
    again.

    Args:
        text: such as "3/8", "auto" or "auto/8".
        environment: by default the process's own.

    Raises:
        ValueError: not of that form, K is not in 1 to N, or the environment does not tell.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None or (match[1] != "auto" and match[2] is None):
        raise ValueError(f"A part is written K/N, such as 3/8, or auto, or auto/N, got {text[:40]!r}.")
    given = None if match[2] is None else int(match[2])
    if match[1] != "auto":
        number, count = int(match[1]), int(match[2])
    else:
        number, count = _from_environment(os.environ if environment is None else environment, given)
    if not 1 <= number <= count <= _MOST:
        raise ValueError(f"Part {number} of {count} does not exist: K goes from 1 to N, N to {_MOST}.")
    return Part(number, count)


def _from_environment(environment: Mapping[str, str], given: int | None) -> tuple[int, int]:
    def number(name: str, default: int | None = None) -> int:
        text = environment.get(name, "")
        if text.isdecimal():
            return int(text)
        if default is None:
            raise ValueError(f"--part auto needs {name} in the environment, or the number of parts: --part auto/N.")
        return default

    if "RANK" in environment:
        return number("RANK") + 1, number("WORLD_SIZE", given)
    if "SLURM_ARRAY_TASK_ID" in environment:
        task = number("SLURM_ARRAY_TASK_ID")
        first, step = number("SLURM_ARRAY_TASK_MIN", 1), number("SLURM_ARRAY_TASK_STEP", 1) or 1
        if given is not None:  # the task's own number, whichever others are run: arrays begin with 1
            return task, given
        count = number("SLURM_ARRAY_TASK_COUNT")
        last = number("SLURM_ARRAY_TASK_MAX", first + (count - 1) * step)
        if (last - first) // step + 1 != count:
            raise ValueError(
                "The tasks of this Slurm array are not a range, so its parts cannot be told: give --part auto/N with "
                "the N of the first run."
            )
        return (task - first) // step + 1, count
    if "JOB_COMPLETION_INDEX" in environment:
        if given is None:
            raise ValueError("Kubernetes does not tell the number of parts: give --part auto/N with N = completions.")
        return number("JOB_COMPLETION_INDEX") + 1, given
    raise ValueError(
        "--part auto finds no RANK, SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX in the environment: give --part K/N."
    )
