# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Which bundle a command works with, and paths as values of its configuration."""

from __future__ import annotations

import re
from pathlib import Path

from monai_anomalyclip.shipped import shipped_folder

__all__ = ["inference_config", "literal_path"]


def inference_config(bundle: Path | None) -> Path:
    """The bundle's configs/inference.json; without a bundle that of bundles/anomalyclip (see ``shipped_folder``).

    Raises:
        FileNotFoundError: when there is no bundle.
    """
    bundle = bundle or shipped_folder("bundles/anomalyclip")
    config = bundle / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(
            f"There is no bundle at {str(bundle)!r}: --bundle DIR names one with configs/inference.json."
        )
    return config


def literal_path(path: Path) -> str:
    """A value of a configuration that stands for a path, whatever it is called.

    In a text MONAI would replace every ``#``, and take ``$``, ``@`` and ``%`` for expressions; in a string literal's
    escape sequences it sees none of them.
    """
    escaped = re.sub(r"[^A-Za-z0-9/._-]", lambda char: f"\\U{ord(char[0]):08x}", str(path))
    return f"$'{escaped}'"
