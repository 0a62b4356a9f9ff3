# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which files a run writes."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DEFAULT_OUTPUTS", "OUTPUT_KINDS", "parse_output_kinds"]

DEFAULT_OUTPUTS = ("nifti", "seg", "sr", "png")
"""Written, where they apply, when nothing else is asked for."""

OUTPUT_KINDS = (*DEFAULT_OUTPUTS, "pm", "sc")
"""nifti: map and mask; seg, sr, pm, sc: DICOM segmentation, structured report, parametric map, secondary capture;
png: map and mask of a picture. Overlay pictures, films with overlay, tables and the report are always written."""


def parse_output_kinds(kinds: str | Iterable[str]) -> tuple[str, ...]:
    """Put kinds in their fixed order, each once; ``"default"`` stands for the default ones.

    Args:
        kinds: names, or one text with commas.

    Raises:
        ValueError: an unknown kind, or none.
    """
    names = [name.strip().lower() for name in (kinds.split(",") if isinstance(kinds, str) else kinds)]
    chosen = {kind for name in names for kind in (DEFAULT_OUTPUTS if name == "default" else (name,)) if kind}
    if not chosen or (unknown := chosen - set(OUTPUT_KINDS)):
        wrong = ", ".join(sorted(unknown)) if chosen else "nothing"
        raise ValueError(f"Unknown output {wrong}: choose from default, {', '.join(OUTPUT_KINDS)}.")
    return tuple(kind for kind in OUTPUT_KINDS if kind in chosen)
