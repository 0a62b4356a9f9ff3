# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a reviewer decided about each region, kept beside the results and bound to the mask that it was decided on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from monai_anomalyclip.atomic_file import write_atomically
from monai_anomalyclip.writers.finished import InputState

__all__ = ["Decision", "Review", "StaleReviewError"]

Verdict = Literal["accepted", "rejected", "open"]


class StaleReviewError(ValueError):
    """Another tab has decided something meanwhile."""


class Decision(BaseModel):
    """What was decided on one region."""

    verdict: Verdict = "open"
    note: Annotated[str, Field(max_length=2000)] = ""


class _Reviewed(BaseModel):
    content: str
    decisions: dict[int, Decision] = {}


class _File(BaseModel):
    revision: int = 0
    inputs: dict[str, _Reviewed] = {}


class Review:
    """The decisions on one study.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        try:
            self._file = _File.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            self._file = _File()
        except ValidationError:
            path.replace(path.with_name("review_damaged.json"))
            self._file = _File()

    @property
    def revision(self) -> int:
        """Grows with each decision."""
        return self._file.revision

    def decisions(self, state: InputState) -> dict[int, Decision]:
        """By number of the region. What was decided on other results of this input does not count."""
        found = self._file.inputs.get(state.name)
        return dict(found.decisions) if found is not None and found.content == _content(state) else {}

    def decide(self, state: InputState, number: int, decision: Decision, revision: int) -> int:
        """Keep a decision.

        Args:
            state: of the input.
            number: of the region.
            decision: what was decided.
            revision: what the page that decides has seen.

        Returns:
            the new revision.

        Raises:
            StaleReviewError: somebody else has decided something on this region meanwhile.
        """
        with self.lock:
            before = self.decisions(state).get(number, Decision())
            if revision != self.revision and before not in (Decision(), decision):
                raise StaleReviewError("This was decided in another tab meanwhile: look at it again.")
            decisions = {**self.decisions(state), number: decision}
            reviewed = _Reviewed(content=_content(state), decisions=decisions)
            inputs = {**self._file.inputs, state.name: reviewed}
            self._file = _File(revision=self.revision + 1, inputs=inputs)
            write_atomically(self.path, self._file.model_dump_json(indent=2).encode())
            return self.revision


def _content(state: InputState) -> str:
    """Digests of the masks among the files of an input."""
    masks = [file.sha256 for file in state.files if file.path.endswith(("_mask.nii.gz", "_mask.png"))]
    return " ".join(masks or [file.sha256 for file in state.files])
