# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Calibrated thresholds, kept beside the prompts that they were measured with."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.networks.prompt_checkpoint import prompts_digest

__all__ = ["CalibratedThresholds", "resolve_threshold", "threshold_source", "thresholds_path"]


@dataclass(frozen=True)
class CalibratedThresholds:
    """Thresholds from a validation set, of 0 to 1 like the maps and scores that are to reach them.

    Attributes:
        pixel_threshold: for maps; None where the validation set could not tell.
        image_threshold: for scores; None likewise.
        method: how they were chosen, e.g. "best_f1" or "fpr=0.05".
        n: number of images.
        prompts_sha256: of the prompts that they were measured with
            (:func:`~monai_anomalyclip.networks.prompt_checkpoint.prompts_digest`); None when unknown, or when the
            method learns nothing.
    """

    pixel_threshold: float | None
    image_threshold: float | None
    method: str
    n: int
    prompts_sha256: str | None = None

    def save(self, path: str | Path) -> None:
        """Write as JSON; an existing file is replaced."""
        content = {key: value for key, value in asdict(self).items() if key != "prompts_sha256" or value is not None}
        with replaced_when_complete(path) as unfinished:
            unfinished.write_text(json.dumps(content, indent=4) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> CalibratedThresholds:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is something else.
        """
        text = Path(path).read_text()
        try:
            content = json.loads(text)
            thresholds = {key: _number(content[key]) for key in ("pixel_threshold", "image_threshold")}
            sha256 = content.get("prompts_sha256")
            return cls(
                **thresholds,
                method=str(content["method"]),
                n=int(content["n"]),
                prompts_sha256=None if sha256 is None else str(sha256),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{Path(path).name}' does not hold calibrated thresholds ({type(error).__name__}: {error}): remove "
                "it and calibrate again."
            ) from error


def thresholds_path(prompts: str | Path) -> Path:
    """Where the thresholds of a prompts' file lie: ``models/model.pt`` has ``models/model.thresholds.json``."""
    return Path(prompts).with_suffix(".thresholds.json")


def resolve_threshold(
    threshold: float | str | Sequence[float], prompts: str | Path, level: Literal["pixel", "image"] = "pixel"
) -> float:
    """Turn a ``threshold`` option into a number: itself, or for "calibrated" what lies beside the prompts.

    Args:
        threshold: a number, or "calibrated"; a list of one of them is accepted too (MONAI Label sends its options that
            way).
        prompts: file of the prompts in use.
        level: which of the thresholds.

    Raises:
        FileNotFoundError: nothing was calibrated for these prompts.
        ValueError: another word, thresholds of other prompts, or none of this level.
    """
    threshold = _only(threshold)
    if threshold != "calibrated":
        try:
            return float(threshold)  # type: ignore[arg-type]  # what is no number is refused
        except (TypeError, ValueError):
            raise ValueError(f"threshold must be a number or 'calibrated', got {threshold!r}.") from None
    path = thresholds_path(prompts)
    if not path.is_file():
        raise FileNotFoundError(
            f"--threshold calibrated needs '{path.name}' beside the prompts '{Path(prompts).name}': calibrate on a "
            "validation set, or give a number."
        )
    calibrated = CalibratedThresholds.load(path)
    if calibrated.prompts_sha256 not in (None, prompts_digest(prompts)):
        raise ValueError(
            f"'{path.name}' was measured with other prompts than '{Path(prompts).name}': calibrate again, or give a "
            "number."
        )
    value = calibrated.pixel_threshold if level == "pixel" else calibrated.image_threshold
    if value is None:
        raise ValueError(f"'{path.name}' has no {level} threshold (validation set of one class): give a number.")
    return value


def threshold_source(threshold: float | str | Sequence[float], prompts: str | Path) -> str:
    """Where the threshold came from that :func:`resolve_threshold` gives, in words for records and reports."""
    if _only(threshold) != "calibrated":
        return "setting of the run"
    calibrated = CalibratedThresholds.load(thresholds_path(prompts))
    return f"calibrated on {calibrated.n} images ({calibrated.method})"


def _only(threshold: float | str | Sequence[float]) -> float | str | Sequence[float]:
    return threshold if isinstance(threshold, str | float | int) or len(threshold) != 1 else threshold[0]


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(f"{value!r} is no threshold")
    return float(value)
