# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run's results: what is finished in it, and the files that are about all inputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.atomic_file import remove_abandoned
from monai_anomalyclip.writers.folder_lock import FolderLock
from monai_anomalyclip.writers.journal import JOURNAL, Journal
from monai_anomalyclip.writers.overlay import Picture, jpeg
from monai_anomalyclip.writers.record import InputRecord
from monai_anomalyclip.writers.report import write_html_report
from monai_anomalyclip.writers.results import result_paths, write_atomically
from monai_anomalyclip.writers.run_document import RunDocument
from monai_anomalyclip.writers.scores import check_score_table, write_score_table

__all__ = ["OutputFolder"]

_PICTURES = ".report"  # pictures of the report, so that a run that goes on can show what an earlier one found

_NOTICE = f"""{RESEARCH_USE_ONLY}

The results in this folder are as identifiable as the images they were made from.

report.html     what was found, for people; results.json the same for programs
scores.csv      one row per picture; per volume or film one row per slice or frame (counted from 0) and one "all".
                Anomaly scores are not calibrated: they rank images, they are not probabilities of disease.
*_heat.png      anomaly map of a picture, 16-bit gray: 0 to 65535 stands for 0 to 1
*_map.nii.gz    anomaly map of a volume, 0 to 1, on the input's grid
*_mask.*        where the map reaches the threshold that scores.csv states
*_seg.dcm       the mask as DICOM segmentation; *_sr.dcm scores as structured report; *_pm.dcm the map; *_sc.dcm
                overlays
*_overlay.*     pictures of the result; slices of NIfTI volumes in radiological convention (the patient's right is on
                the left of axial and coronal slices), as far as the header tells the truth; DICOM as it is stored
journal.jsonl   what is finished, so that a second run goes on
"""


class OutputFolder:
    """An output folder with its journal. One process per folder: others are kept out until it is released.

    Args:
        path: the folder; made if it does not exist, for its owner only.

    Attributes:
        journal: what is finished.

    Raises:
        FolderInUseError: another process writes to the folder.
        ValueError: the folder holds files of another program under the names that this one uses.
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: FolderLock | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.hold()
            check_score_table(self.path / "scores.csv")
            self.journal = Journal(self.path / JOURNAL)
            for name in ("results.json", "report.html", "NOTICE.txt"):
                self._refuse_foreign(self.path / name)
            write_atomically(self.path / "NOTICE.txt", _NOTICE.encode())
            remove_abandoned(self.path)
        except OSError as error:
            raise OSError(
                f"Cannot write to the output folder {str(path)!r} ({error.strerror}): choose another one."
            ) from error

    def hold(self) -> None:
        """Keep the runs of other processes out, again if it was released.

        Raises:
            FolderInUseError: another process writes to the folder.
        """
        if self._lock is None:
            self._lock = FolderLock(self.path)

    def release(self) -> None:
        """Let the runs of other processes in: nothing more is written."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def holds_all(self, outputs: Iterable[str]) -> bool:
        """Whether all of these files, relative to the folder, exist."""
        return all((self.path / output).exists() for output in outputs)

    def holds_any(self, outputs: Iterable[str]) -> bool:
        """Whether one of these files, relative to the folder, exists."""
        return any((self.path / output).exists() for output in outputs)

    def remove(self, outputs: Iterable[str]) -> None:
        """Remove files, relative to the folder, that were written for an input.

        Raises:
            ValueError: a name could lead out of the folder.
        """
        for output in outputs:
            (path,) = result_paths(self.path, output, ("",))
            path.unlink(missing_ok=True)

    def relative(self, paths: Sequence[Path]) -> list[str]:
        """Files below the folder, relative to it."""
        return [path.relative_to(self.path).as_posix() for path in paths]

    def keep_picture(self, name: str, picture: Picture) -> None:
        """Keep the picture that stands for an input in the report."""
        write_atomically(self._picture_path(name), jpeg(picture))

    def records(self, names: Sequence[str]) -> list[InputRecord]:
        """Records of the inputs that the journal knows, those of `names` first and in their order."""
        return [InputRecord.from_dict(entry["record"]) for entry in self._entries(names) if "record" in entry]

    def summarise(self, document: RunDocument, names: Sequence[str]) -> None:
        """Write ``scores.csv``, ``results.json`` and ``report.html``.

        Args:
            document: the run, with the records of this folder.
            names: of the inputs, in order.
        """
        write_score_table(self.path / "scores.csv", self._entries(names))
        document.write(self.path / "results.json")
        pictures = {record.name: self._picture_path(record.name) for record in document.inputs}
        montages = {name: path.read_bytes() for name, path in pictures.items() if path.is_file()}
        write_html_report(document, montages, self.path / "report.html")

    def _entries(self, names: Sequence[str]) -> list[dict[str, Any]]:
        # What was removed with all its files is not spoken of.
        named = set(names)
        known = {
            name: entry
            for name, entry in self.journal.entries.items()
            if name in named or entry["status"] != "ok" or self.holds_any(entry["record"]["outputs"])
        }
        order = dict.fromkeys([*(name for name in names if name in known), *known])
        return [known[name] for name in order]

    def _picture_path(self, name: str) -> Path:
        folder = self.path / _PICTURES
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.jpg"

    def _refuse_foreign(self, path: Path) -> None:
        if path.exists() and RESEARCH_USE_ONLY.encode() not in path.read_bytes():
            raise ValueError(
                f"{path.name!r} in the output folder is not a file of this program: choose another output folder."
            )
