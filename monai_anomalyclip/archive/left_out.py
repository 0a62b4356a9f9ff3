# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What an archive cannot tell: series that gave no results, so that they are not fetched again every night."""

from __future__ import annotations

import json
import os
from pathlib import Path

from monai_anomalyclip.atomic_file import make_private_folder

__all__ = ["LeftOut"]


class LeftOut:
    """A file with one line per series, by the key of its seal: nothing of a patient, no UID.

    Args:
        path: the file; made when the first is noted.

    Raises:
        ValueError: another file lies there.

    Example:
        >>> LeftOut(Path("state/left_out.jsonl")).reason(seal.key)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reasons: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                self._reasons[entry["key"]] = entry["reason"]
            except (ValueError, TypeError, KeyError):
                if not self._reasons:
                    raise ValueError(f"{path.name!r} is not a list of series that this program left out.") from None

    def reason(self, key: str) -> str | None:
        """Why a series gave nothing; None where it is not known."""
        return self._reasons.get(key)

    def note(self, key: str, reason: str) -> None:
        """Note a series."""
        make_private_folder(self.path.absolute().parent)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps({"key": key, "reason": reason}) + "\n")
        self._reasons[key] = reason
