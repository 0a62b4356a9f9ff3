# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""ROC and PRO curves of ranked scores, and their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.metrics.ranking import Ranked, TiedGroups

__all__ = ["plot_curves", "pro_curve", "roc_curve"]

FloatArray = npt.NDArray[np.float64]
_GRID = 1000
_LINES = 10  # colours of matplotlib's cycle; more curves are told apart by their dashes
_DASHES = ("-", "--", ":", "-.")


def roc_curve(ranked: Ranked) -> tuple[FloatArray, FloatArray]:
    """False and true positive rates, from (0, 0) to (1, 1), thinned to what a picture of 1000 pixels shows.

    Args:
        ranked: with normal and anomalous pixels (or images).
    """
    return _curve(ranked, ((group, group.anomalous) for group in ranked.groups()))


def pro_curve(ranked: Ranked) -> tuple[FloatArray, FloatArray]:
    """False positive rates and mean overlap of regions, as :func:`roc_curve`.

    Args:
        ranked: with the areas of the regions.

    Raises:
        ValueError: the areas are missing.
    """

    def parts() -> Iterable[tuple[TiedGroups, npt.NDArray[Any]]]:
        for group in ranked.groups():
            if group.share is None:
                raise ValueError("A PRO curve needs the regions' areas, which were not given.")
            yield group, group.share

    return _curve(ranked, parts())


def _curve(ranked: Ranked, parts: Iterable[tuple[TiedGroups, npt.NDArray[Any]]]) -> tuple[FloatArray, FloatArray]:
    rates, heights, height = [np.zeros(1)], [np.zeros(1)], 0.0
    for group, weight in parts:
        above = height + np.cumsum(weight, dtype=np.float64)
        below = np.concatenate([[height], above[:-1]])
        height = float(above[-1])
        # Two points for each group: where the curve starts to rise and where it has risen.
        rate = np.stack([group.normal_above, group.normal_above + group.normal_tied], axis=1) / ranked.n_normal
        rates.append(rate.ravel())
        heights.append(np.stack([below, above], axis=1).ravel())
    x = np.concatenate([*rates, [1.0]])
    y = np.concatenate([*heights, [height]]) / height
    if len(x) <= 4 * _GRID:
        return x, y
    grid = np.linspace(0, 1, _GRID)
    kept = np.unique(np.concatenate([[0], *(np.searchsorted(line, grid) for line in (x, y)), [len(x) - 1]]))
    kept = kept[kept < len(x)]
    return x[kept], y[kept]


def plot_curves(
    path: str | Path,
    curves: Mapping[str, tuple[FloatArray, FloatArray]],
    kind: Literal["ROC", "PRO"] = "ROC",
    *,
    fpr_limit: float | None = None,
    title: str = "",
) -> None:
    """Draw curves into a PNG of 1280 by 960 pixels, or wider with many curves; an existing file is replaced.

    Args:
        path: of the picture.
        curves: by label, rates and heights in [0, 1].
        kind: names the vertical axis, and shades what counts when ``fpr_limit`` is given.
        fpr_limit: false positive rate up to which AUPRO counts, drawn as a line.
        title: above the picture.

    Raises:
        ValueError: there is no curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: only pictures need it
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError("There are no curves to draw.")
    columns = 1 + (len(curves) - 1) // 20
    figure = Figure(figsize=(6.4 + 1.6 * (columns if len(curves) > 3 else 0), 4.8), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (label, (x, y)) in enumerate(curves.items()):
        axes.plot(x, y, _DASHES[index // _LINES % len(_DASHES)], color=f"C{index % _LINES}", linewidth=1.3, label=label)
    if fpr_limit is not None and fpr_limit < 1:
        axes.axvspan(fpr_limit, 1, color="0.92", zorder=0)
        axes.axvline(fpr_limit, color="0.5", linewidth=0.8)
        axes.text(fpr_limit + 0.01, 0.02, f"does not count (above {fpr_limit:g})", color="0.4", fontsize=8)
    elif kind == "ROC":
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=0)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="false positive rate", title=title)
    axes.set_ylabel("true positive rate" if kind == "ROC" else "mean overlap of regions (PRO)")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(curves) <= 3:
        axes.legend(loc="lower right", fontsize=9)
    else:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, ncols=columns, frameon=False)
    with replaced_when_complete(path) as unfinished:
        figure.savefig(unfinished, format="png")
