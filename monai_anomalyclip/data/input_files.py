# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Find the files of a run."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data.dicom import SkippedFile
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["EXCLUDED", "RESULTS", "PathLike", "find_files", "holds_results", "matches", "sha256_of_file"]

EXCLUDED = "excluded"
"""Why a file or folder that matches a pattern is skipped."""

RESULTS = "results of an earlier run"
"""Why a folder with results of this program is skipped."""

_MARKS = ("NOTICE.txt", "results.json")  # which the program writes into a folder of results
_MARK_BYTES = 4096

PathLike = str | os.PathLike[str]


def find_files(
    roots: Sequence[PathLike], excluded: Path | None, skipped: list[SkippedFile], patterns: Sequence[str] = ()
) -> list[tuple[Path, Path]]:
    """All visible files at or below some paths, each once, with the folder that its name is relative to.

    Links that lead out of a folder and what cannot be opened or is no regular file are skipped, and so are folders that
    hold results of this program: maps and overlays are no inputs.

    Args:
        roots: files and folders.
        excluded: resolved path of a folder that is not entered.
        skipped: what is skipped is added to it.
        patterns: of files and folders below the paths that are skipped, see :func:`matches`.

    Returns:
        pairs of a folder and a file.

    Raises:
        UnreadableInputError: a path does not exist, or cannot be opened.
        ValueError: the excluded folder is one of the paths.
    """
    files: dict[Path, tuple[Path, Path]] = {}
    for root in map(Path, roots):
        try:
            mode = _mode(root)
        except OSError as error:
            reason = "you have no permission" if isinstance(error, PermissionError) else error.strerror
            raise UnreadableInputError(f"Input {str(root)!r} cannot be opened: {reason}.") from error
        if mode is None:
            raise UnreadableInputError(f"Input {str(root)!r} does not exist: give a file or a folder.")
        if stat.S_ISREG(mode):
            files.setdefault(root.resolve(), (root.parent, root))
            continue
        if excluded == root.resolve():
            raise ValueError(f"Results cannot go into the input folder {str(root)!r}: choose another output folder.")
        if holds_results(root):
            skipped.append(SkippedFile(root, RESULTS))
            continue
        for file in _walk(root, excluded, skipped, patterns):
            try:
                if not file.resolve().is_relative_to(root.resolve()):
                    skipped.append(SkippedFile(file, "link out of the folder"))
                elif not stat.S_ISREG(_mode(file) or stat.S_IFREG):  # to open a pipe would wait for ever
                    skipped.append(SkippedFile(file, "no regular file"))
                else:
                    files.setdefault(file.resolve(), (root, file))
            except (OSError, RuntimeError):  # a link that leads to itself makes pathlib raise the latter before 3.13
                skipped.append(SkippedFile(file, "unreadable", "The file cannot be opened."))
    return list(files.values())


def matches(path: PurePath, patterns: Sequence[str]) -> bool:
    """Whether a relative path matches a pattern of a shell (``*``, ``?``, ``[...]``), upper and lower case alike.

    A pattern with a slash is for the whole path, any other for the name alone.

    Example:
        >>> matches(PurePath("study/scout/1.dcm"), ["*/scout/*"]), matches(PurePath("study/a.PNG"), ["*.png"])
        (True, True)
    """
    whole, name = path.as_posix().lower(), path.name.lower()
    trimmed = (pattern.lower().rstrip("/") for pattern in patterns)
    return any(fnmatch.fnmatchcase(whole if "/" in pattern else name, pattern) for pattern in trimmed)


def holds_results(folder: Path) -> bool:
    """Whether a run of this program has written its results into a folder, finished or not."""
    try:
        records = sorted(folder.glob("*_record.json"))
        return any(_is_ours(path) for path in (*(folder / name for name in _MARKS), *records[:1]))
    except OSError:
        return False


def sha256_of_file(path: PathLike) -> str:
    """SHA-256 of what is in a file, 64 hexadecimal digits; a mebibyte of it is in memory at a time."""
    content = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(2**20):
            content.update(piece)
    return content.hexdigest()


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return RESEARCH_USE_ONLY.encode() in stream.read(_MARK_BYTES)
    except OSError:
        return False


def _mode(path: Path) -> int | None:
    """Kind of what a path leads to, as in :mod:`stat`; None where there is nothing.

    What pathlib makes of a link that leads to itself, and of a missing permission, differs between versions of Python.

    Raises:
        OSError: it cannot be found out, for one of these reasons or another.
    """
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for names that no file can have
        return None


def _walk(root: Path, exclude: Path | None, skipped: list[SkippedFile], patterns: Sequence[str]) -> Iterator[Path]:
    """Visible files below a folder, sorted; folders reached by a link are not entered."""

    def refuse(error: OSError) -> None:
        skipped.append(SkippedFile(Path(error.filename), "unreadable", "The folder cannot be opened."))

    for folder, folders, files in os.walk(root, onerror=refuse):
        visible = [Path(folder, name) for name in sorted(folders) if name[0] != "."]
        visible = [path for path in visible if _resolved(path) != exclude]
        left_out = {path: EXCLUDED for path in visible if matches(path.relative_to(root), patterns)}
        left_out |= {path: RESULTS for path in visible if path not in left_out and holds_results(path)}
        skipped += [SkippedFile(path, reason) for path, reason in left_out.items()]
        folders[:] = [path.name for path in visible if path not in left_out]
        for path in (Path(folder, name) for name in sorted(files) if name[0] != "."):
            if matches(path.relative_to(root), patterns):
                skipped.append(SkippedFile(path, EXCLUDED))
            else:
                yield path


def _resolved(folder: Path) -> Path:
    """Where it really is; itself if that cannot be found out."""
    try:
        return folder.resolve()
    except (OSError, RuntimeError):
        return folder
