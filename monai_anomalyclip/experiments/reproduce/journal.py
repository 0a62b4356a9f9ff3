# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What is finished in the folder of an experiment, and with which settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai_anomalyclip.atomic_file import replaced_when_complete

__all__ = ["RunFolder"]


class RunFolder:
    """Folder of an experiment, or of one of its seeds.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def of_seed(self, seed: int) -> RunFolder:
        """The folder of one seed."""
        return RunFolder(self.path / f"seed-{seed}")

    @property
    def prompts(self) -> Path:
        """What a finished tuning leaves."""
        return self.path / "models" / "model.pt"

    def is_tuned(self, settings: Mapping[str, Any]) -> bool:
        """Whether a tuning with these settings is finished.

        Raises:
            ValueError: there is one, finished or not, with other settings.
        """
        noted = self._read(self.path / "tuning.json")
        if noted is None:
            return False
        differing = [key for key, value in settings.items() if noted.get(key) != value]
        if differing:
            raise ValueError(
                f"'{self.path}' holds a run with other settings ({', '.join(differing)}): remove that folder, or give "
                "another output folder"
            )
        return self.prompts.is_file()

    def begin_tuning(self, settings: Mapping[str, Any]) -> None:
        """Note the settings of a tuning before it begins."""
        self._write(self.path / "tuning.json", settings)

    def result(self, data_set: str, settings: Mapping[str, Any]) -> dict[str, float] | None:
        """The metrics of a finished evaluation with these settings; None where there is none."""
        noted = self._read(self.path / data_set / "result.json")
        if noted is None or noted.get("settings") != settings:
            return None
        return {name: math.nan if value is None else value for name, value in noted["metrics"].items()}

    def write_result(self, data_set: str, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Keep the metrics of an evaluation; NaN is written as null."""
        plain = {name: None if math.isnan(value) else value for name, value in metrics.items()}
        self._write(self.path / data_set / "result.json", {"settings": settings, "metrics": plain})

    @staticmethod
    def digest(files: Iterable[str | Path]) -> str:
        """SHA-256 over the contents of files, in their order."""
        digest = hashlib.sha256()
        for file in files:
            digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
        return digest.hexdigest()

    @staticmethod
    def _read(file: Path) -> dict[str, Any] | None:
        if not file.is_file():
            return None
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return content

    @staticmethod
    def _write(file: Path, content: Mapping[str, Any]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(file) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
