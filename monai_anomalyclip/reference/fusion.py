# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""AnomalyCLIP's score and the distance to a reference as one: only where labelled images showed that it helps.

No blind fusion is safe: beside a poor partner every rule loses. So a rule is measured first (:func:`measure_gain`),
and used where the measurement, kept beside the reference, says that it gained.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from monai_anomalyclip.atomic_file import replaced_when_complete

__all__ = ["RULES", "allowed_rule", "fuse", "fused_text", "fusion_path", "measure_gain"]

RULES = ("fisher", "geometric")
"""Fisher's combination of p-values; geometric mean of how unusual each finds the image, 1 - p."""

_FORMAT = "monai_anomalyclip.fusion"
_FEWEST = 10  # images of each label from which a gain can be told
_RESAMPLES = 1000

logger = logging.getLogger(__name__)


def fuse(p_values: npt.ArrayLike, rule: str = "fisher") -> Any:
    """One score in [0, 1] of several p-values, larger where they are smaller.

    Fisher: 1 minus the upper tail of chi-squared with 2 n degrees of freedom at -2 sum(ln p) (Fisher, 1932). The
    p-values come from the same image, so the result ranks and is no p-value itself.

    Args:
        p_values: (..., n), each above 0 and at most 1.
        rule: one of :data:`RULES`.

    Returns:
        (...).

    Raises:
        ValueError: an unknown rule, or a p-value out of range.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not bool(((values > 0) & (values <= 1)).all()):
        raise ValueError(f"p-values lie above 0 and are at most 1, got {values.tolist()}.")
    if rule == "fisher":
        from scipy.stats import chi2  # takes a moment

        return chi2.cdf(-2 * np.log(values).sum(-1), 2 * values.shape[-1])
    if rule == "geometric":
        return np.exp(np.log(np.maximum(1 - values, 1e-12)).mean(-1))
    raise ValueError(f"There is no rule {rule!r} of fusion: {' and '.join(RULES)} are known.")


def fusion_path(reference: str | os.PathLike[str]) -> Path:
    """Where the measurement lies: beside ``my.reference`` it is ``my.fusion.json``."""
    return Path(reference).with_suffix(".fusion.json")


def measure_gain(
    predictor: Callable[[Any], Any],
    entries: Iterable[Mapping[str, Any]],
    reference: str | os.PathLike[str],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both scores and both rules of fusion on labelled images, and keep the result beside the reference.

    A rule gains where it separates better than the better one of the two scores, and the lower end of the bootstrap's
    90 % interval of that difference is not below 0.

    Args:
        predictor: AnomalyCLIP and the reference side by side: ``Predictor(bundle, reference=...)``, calibrated on
            normals (:meth:`Predictor.calibrate_on`).
        entries: ``{"image": ..., "image_label": 0 or 1}``, none of them among the normals.
        reference: its file.
        seed: of the bootstrap.

    Returns:
        what is kept: areas under the ROC curve, gains, and ``gained``, the rules that may be used.

    Raises:
        ValueError: too few images, or one without both p-values.
    """
    ps, labels = [], []
    for entry in tqdm(list(entries), desc="Scoring by both", unit="image"):
        prediction = predictor(entry["image"])
        found = {one.method: one.p_value for one in prediction.compared}
        if None in (found.get("anomalyclip"), found.get("reference")):
            raise ValueError(
                f"The image {Path(str(entry['image'])).name} has not both p-values: "
                + " ".join(prediction.warnings)
                + " Calibrate AnomalyCLIP on the same normals first (predict --calibrate-on)."
            )
        ps.append([found["anomalyclip"], found["reference"]])
        labels.append(int(entry["image_label"]))
    return _measured(np.array(ps, dtype=np.float64), np.array(labels), predictor, reference, seed)


def _measured(
    ps: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    predictor: Any,
    reference: str | os.PathLike[str],
    seed: int,
) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    counts = np.bincount(labels, minlength=2)
    if counts.min() < _FEWEST:
        raise ValueError(
            f"A gain cannot be told from {counts[0]} normal and {counts[1]} abnormal images: {_FEWEST} of each are the "
            "least."
        )
    scores = {"anomalyclip": -ps[:, 0], "reference": -ps[:, 1], **{rule: fuse(ps, rule) for rule in RULES}}
    auroc = {name: float(roc_auc_score(labels, values)) for name, values in scores.items()}
    better = max(("anomalyclip", "reference"), key=lambda name: auroc[name])
    generator = np.random.default_rng(seed)
    places = [np.flatnonzero(labels == label) for label in (0, 1)]
    gains: dict[str, list[float]] = {rule: [] for rule in RULES}
    for _ in range(_RESAMPLES):
        chosen = np.concatenate([generator.choice(one, len(one)) for one in places])
        base = roc_auc_score(labels[chosen], scores[better][chosen])
        for rule in RULES:
            gains[rule].append(float(roc_auc_score(labels[chosen], scores[rule][chosen]) - base))
    low = {rule: float(np.quantile(values, 0.05)) for rule, values in gains.items()}
    content = {
        "format": _FORMAT,
        "made_with": identity_of(predictor),
        "images": {"normal": int(counts[0]), "abnormal": int(counts[1])},
        "image_auroc": auroc,
        "better_alone": better,
        "gain": {rule: auroc[rule] - auroc[better] for rule in RULES},
        "gain_at_least": low,
        "gained": [rule for rule in RULES if auroc[rule] > auroc[better] and low[rule] >= 0],
    }
    with replaced_when_complete(fusion_path(reference)) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    logger.info("%s", content)
    return content


def identity_of(predictor: Any) -> list[str]:
    """What a measurement belongs to: network and prompts with their normals, and the bank."""
    normals = predictor.normals
    return ["" if normals is None else normals.digest(), predictor.inferer.reference.bank_digest]


def allowed_rule(rule: str | None, reference: str | os.PathLike[str], normals: Any, bank: str) -> str | None:
    """The rule, if a measurement with this network, these normals and this bank allows it; None for None.

    Args:
        rule: one of :data:`RULES`.
        reference: file of the reference.
        normals: :class:`NormalScores` in use, or None.
        bank: digest of the bank.

    Raises:
        ValueError: an unknown rule; nothing was measured, or with another network or reference, or without a gain.
    """
    if rule is None:
        return None
    if rule not in RULES:
        raise ValueError(f"There is no rule {rule!r} of fusion: {' and '.join(RULES)} are known.")
    if normals is None:
        raise ValueError("Fusing needs p-values of AnomalyCLIP, too: calibrate it on normals (--calibrate-on) first.")
    path = fusion_path(reference)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise KeyError
        made_with, gained, gain = content["made_with"], content["gained"], float(content["gain"][rule])
    except FileNotFoundError:
        raise ValueError(
            f"Nothing says that fusing helps: measure it on labelled images first, with the bundle own_normals' "
            f"evaluate.json and --beside BUNDLE, which writes '{path.name}'."
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"'{path.name}' holds no measurement of a fusion: remove it and measure again.") from error
    if made_with != [normals.digest(), bank]:
        raise ValueError(f"'{path.name}' was measured with another network, calibration or bank: measure again.")
    if rule not in gained or not math.isfinite(gain):
        raise ValueError(
            f"Fusing by {rule} did not gain on the labelled images (AUROC {gain:+.3f}): use the scores side by side."
        )
    return rule


def fused_text(compared: str, rule: str | None) -> str:
    """The fused score as JSON for the record; "" where there is no rule, or not both p-values."""
    ps = {one["method"]: one.get("p_value") for one in json.loads(compared or "[]")}
    both = [p for method in ("anomalyclip", "reference") if (p := ps.get(method)) is not None]
    return "" if rule is None or len(both) < 2 else json.dumps({"rule": rule, "score": float(fuse(both, rule))})
