# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Conformal p-values: how unusual a score is among the scores of normal images.

Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; for several images of one patient
the mean over draws of one image each (Dunn, Wasserman, Ramdas, JASA 2022). See docs/explanation/conformal.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.atomic_file import replaced_when_complete

__all__ = ["FEWEST_NORMALS", "RECOMMENDED_NORMALS", "ConformalScores", "fewest_normals", "pixel_threshold"]

FEWEST_NORMALS = 4
"""With fewer a score can rank images and nothing else."""

RECOMMENDED_NORMALS = 32

NOT_DISEASE = "Unlike your normals does not mean disease."

_FORMAT = "monai_anomalyclip.conformal"
_ROUNDING = 1e-9


def fewest_normals(rate: float) -> int:
    """How many normals it takes before anything can be flagged at a rate: 9 for 10 %, 19 for 5 %.

    Raises:
        ValueError: the rate is not above 0 and below 1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"A false positive rate lies above 0 and below 1, got {rate}.")
    return max(FEWEST_NORMALS, math.ceil(1 / rate - 1 - _ROUNDING))


class ConformalScores:
    """Scores of normal images, each found without its own help, that a new score is compared with.

    The score may be any that is larger where an image is less normal: the distance to a reference, or the margin of
    AnomalyCLIP's logits (abnormal less normal; its probability saturates and makes ties).

    Args:
        scores: one per normal image.
        groups: whose image each is, such as a patient's; by default each is its own. A group counts as one normal,
            its images sharing one vote.
        unit: what a group is called, in the plural.

    Attributes:
        k: number of groups.
        smallest_p: 1 / (k + 1): no p-value can be smaller.

    Raises:
        ValueError: there are no scores, a score is NaN, or scores and groups differ in number.

    Example::

        calibration = ConformalScores([0.1, 0.2, 0.3, 0.4])
        calibration.p_value(0.35)  # (1 + 1) / (4 + 1) = 0.4
    """

    def __init__(
        self,
        scores: Sequence[float] | npt.NDArray[np.floating],
        groups: Sequence[object] | None = None,
        *,
        unit: str = "normal images",
    ) -> None:
        values = np.asarray(scores, dtype=np.float64).reshape(-1)
        if not len(values):
            raise ValueError("There is no normal image to compare with: a calibration needs at least one.")
        if np.isnan(values).any():
            raise ValueError(f"{int(np.isnan(values).sum())} scores of normal images are NaN: leave these images out.")
        names = list(range(len(values))) if groups is None else list(groups)
        if len(names) != len(values):
            raise ValueError(f"There are {len(values)} scores of normal images but {len(names)} groups.")
        self.scores = values
        self.unit = unit
        self.groups = names
        _, self._index = np.unique([str(name) for name in names], return_inverse=True)
        self._weights = 1.0 / np.bincount(self._index)[self._index]  # the images of a group share one vote
        self.k = int(self._index.max()) + 1
        self.smallest_p = 1 / (self.k + 1)

    def p_value(self, score: float) -> float | None:
        """(1 + number of normals at least as far) / (k + 1); None for fewer than four normals.

        Raises:
            ValueError: the score is NaN.
        """
        if math.isnan(score):
            raise ValueError("The score is NaN: there is nothing to compare.")
        if self.k < FEWEST_NORMALS:
            return None
        return float((1 + self._weights[self.scores >= score].sum()) / (self.k + 1))

    def may_flag(self, rate: float) -> bool:
        """Whether there are normals enough to flag anything at this false positive rate."""
        return self.k >= fewest_normals(rate)

    def flags(self, score: float, rate: float = 0.1) -> bool:
        """Whether a score is flagged at a false positive rate, that is, whether p is not above it.

        Raises:
            ValueError: the rate needs more normals than there are.
        """
        self._check_rate(rate)
        p = self.p_value(score)
        return p is not None and p <= rate + _ROUNDING

    def threshold(self, rate: float) -> float:
        """The largest score that is not flagged at this rate: a score is flagged when it is above.

        Raises:
            ValueError: the rate needs more normals than there are.
        """
        self._check_rate(rate)
        order = np.argsort(-self.scores, kind="stable")
        p = (1 + np.cumsum(self._weights[order])) / (self.k + 1)  # of a score as large as each
        unflagged = order[p > rate + _ROUNDING]
        return float(self.scores[unflagged].max())

    def without(self, groups: Collection[object]) -> ConformalScores:
        """The same without some groups.

        Raises:
            ValueError: nothing would be left.
        """
        kept = [index for index, group in enumerate(self.groups) if group not in groups]
        return ConformalScores(self.scores[kept], [self.groups[index] for index in kept], unit=self.unit)

    def largest_of_each(self) -> ConformalScores:
        """One score per group, its largest: what the largest score of a volume's slices is compared with.

        It holds for volumes with about as many slices as the groups have images.
        """
        largest = np.full(self.k, -np.inf)
        np.maximum.at(largest, self._index, self.scores)
        return ConformalScores(largest, unit=self.unit)

    def sentence(self, p: float | None) -> str:
        """What a p-value of this calibration says, for people."""
        compared = f"Compared with your {self.k} {self.unit}, "
        if p is None:
            return f"{compared}the score only ranks images: a p-value needs at least {FEWEST_NORMALS}. {NOT_DISEASE}"
        if p <= self.smallest_p + _ROUNDING:
            return f"{compared}p = {p:.2g} is the smallest value that {self.k} allow. {NOT_DISEASE}"
        share = p * (self.k + 1) - 1
        return (
            f"{compared}p = {p:.2g}: {share:.3g} of them are at least as far from the others as this one. {NOT_DISEASE}"
        )

    def save(self, path: str | Path) -> None:
        """Write scores and groups as JSON; the groups as numbers, without their names."""
        content = {
            "format": _FORMAT,
            "unit": self.unit,
            "scores": self.scores.tolist(),
            "groups": self._index.tolist(),
        }
        with replaced_when_complete(path) as unfinished:
            unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ConformalScores:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise KeyError(content["format"])
            scores = [float(score) for score in content["scores"]]
            return cls(scores, [int(group) for group in content["groups"]], unit=str(content["unit"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"'{Path(path).name}' holds no conformal scores: calibrate again.") from error

    def _check_rate(self, rate: float) -> None:
        if not self.may_flag(rate):
            raise ValueError(
                f"A false positive rate of {rate:.0%} needs {fewest_normals(rate)} {self.unit}, there are {self.k}: "
                f"add some ({RECOMMENDED_NORMALS} are recommended)."
            )


def pixel_threshold(maps: npt.NDArray[np.floating], rate: float) -> float:
    """The smallest map value from which at most a share `rate` of the normals' pixels is flagged.

    Args:
        maps: anomaly maps of normal images, each found without its own help, (k, H, W).
        rate: chosen share of normal pixels, above 0 and below 1.

    Raises:
        ValueError: fewer than four maps, a NaN, or a rate out of range.
    """
    if not 0 < rate < 1:
        raise ValueError(f"A false positive rate lies above 0 and below 1, got {rate}.")
    if len(maps) < FEWEST_NORMALS:
        raise ValueError(f"A pixel threshold needs at least {FEWEST_NORMALS} normal images, got {len(maps)}.")
    values = np.sort(np.asarray(maps, dtype=np.float32).reshape(-1))
    if np.isnan(values[-1]):
        raise ValueError("The maps of normal images hold NaN.")
    largest_allowed = int(np.floor(len(values) * rate + _ROUNDING))
    border = values[len(values) - 1 - largest_allowed]  # this value itself must stay below
    return float(np.nextafter(border, np.float32(np.inf)))
