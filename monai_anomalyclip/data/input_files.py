# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Find the files of a run."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data.dicom import SkippedFile
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = [
    "EXCLUDED",
    "FRAME_SUFFIXES",
    "ITK_SUFFIXES",
    "NIFTI_SUFFIXES",
    "NOT_READ",
    "OTHER_SUFFIXES",
    "RESULTS",
    "VIDEO_SUFFIXES",
    "PathLike",
    "find_files",
    "format_of",
    "holds_results",
    "is_nifti",
    "is_picture",
    "matches",
]

EXCLUDED = "excluded"
"""Why a file or folder that matches a pattern is skipped."""

RESULTS = "results of an earlier run"
"""Why a folder with results of this program is skipped."""

NOT_READ = ", not read"
"""How the reasons end for which files are left out that are, or hold, images of a kind that is not read."""

FRAME_SUFFIXES: tuple[str, ...] = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp"),
    *(".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""File names that are taken for pictures; what a file really is, its content says. So for volumes and videos."""

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Names of NRRD and MetaImage volumes."""

OTHER_SUFFIXES = (*ITK_SUFFIXES, ".mgz", ".mgh")
"""Names of volumes that are no NIfTI."""

NIFTI_SUFFIXES: tuple[str, ...] = (".nii", ".nii.gz", ".hdr", *OTHER_SUFFIXES)
"""Names of volumes: NIfTI, the header of a NIfTI pair, NRRD, MetaImage, MGH."""

VIDEO_SUFFIXES: tuple[str, ...] = (
    *(".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg"),
    *(".wmv", ".asf", ".ts", ".m2ts", ".mts", ".flv", ".ogv", ".3gp"),
)
"""Names of videos."""

# What files begin with that are, or hold, images: offset, bytes, and the name of the format.
_BEGINNINGS = (
    (0, b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (0, b"Rar!", "RAR archive"),
    (257, b"ustar", "TAR archive"),
    (0, b"\x1f\x8b", "gzip-compressed file"),
    (0, b"BZh", "bzip2-compressed file"),
    (0, b"\xfd7zXZ", "xz-compressed file"),
    (0, b"\x89PNG", "picture without its suffix"),
    (0, b"\xff\xd8\xff", "picture without its suffix"),
    (0, b"GIF8", "picture without its suffix"),
    (0, b"II*\0", "TIFF of another suffix"),
    (0, b"MM\0*", "TIFF of another suffix"),
    (8, b"WEBP", "picture without its suffix"),
    (0, b"NRRD000", "NRRD volume without its suffix"),
    (344, b"n+1\0", "NIfTI volume without its suffix"),
    (4, b"ftyphei", "HEIC picture"),
    (4, b"ftypmif1", "HEIC picture"),
    (4, b"ftypavif", "AVIF picture"),
    (4, b"ftyp", "video without its suffix"),
    (0, b"\x1aE\xdf\xa3", "video without its suffix"),
    (8, b"AVI ", "video without its suffix"),
    (0, b"8BPS", "Photoshop picture"),
    (0, b"v/1\x01", "OpenEXR picture"),
    (0, b"ZISRAWFILE", "CZI microscopy"),
    (0, b"MATRIX7", "ECAT volume"),
)
# Formats without a beginning of their own.
_ENDINGS = {
    ".par": "Philips PAR/REC volume",
    ".mnc": "MINC volume",
    ".nd2": "ND2 microscopy",
    ".lif": "LIF microscopy",
    ".heic": "HEIC picture",
    ".img": "Analyze volume without its header",
}
_HEADERS = (".hdr", ".mhd", ".nhdr", ".par")  # beside which other files hold the voxels
_VOXELS = (".img", ".img.gz", ".raw", ".zraw", ".raw.gz", ".rec")

_MARKS = ("NOTICE.txt", "results.json")  # which the program writes into a folder of results
_MARK_BYTES = 4096

PathLike = str | os.PathLike[str]


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether the file name is that of a picture."""
    return Path(path).name.lower().endswith(FRAME_SUFFIXES)


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether the file name is that of a volume: NIfTI, NRRD, MetaImage or MGH."""
    return Path(path).name.lower().endswith(NIFTI_SUFFIXES)


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
        if stat.S_ISREG(mode_of_input(root)):
            files.setdefault(root.resolve(), (root.parent, root))
            continue
        top = root.resolve()
        if excluded == top:
            raise ValueError(f"Results cannot go into the input folder {str(root)!r}: choose another output folder.")
        if holds_results(root):
            skipped.append(SkippedFile(root, RESULTS))
            continue
        for file in _walk(root, excluded, skipped, patterns):
            try:
                place = file.resolve()  # once: it looks at every folder above
                if not place.is_relative_to(top):
                    skipped.append(SkippedFile(file, "link out of the folder"))
                elif file.is_symlink() and holds_results(place.parent):
                    skipped.append(SkippedFile(file, RESULTS))
                elif not stat.S_ISREG(_mode(file) or stat.S_IFREG):  # to open a pipe would wait for ever
                    skipped.append(SkippedFile(file, "no regular file"))
                else:
                    files.setdefault(place, (root, file))
            except (OSError, RuntimeError):  # a link that leads to itself makes pathlib raise the latter before 3.13
                skipped.append(SkippedFile(file, "unreadable", "The file cannot be opened."))
    return list(files.values())


def matches(path: PurePath, patterns: Sequence[str]) -> bool:
    """Whether a relative path matches a pattern of a shell (``*``, ``?``, ``[...]``), upper and lower case alike.

    A pattern with a slash is for the whole path, which may be written with a slash before it; any other is for the name
    alone.

    Example:
        >>> matches(PurePath("scout/1.dcm"), ["*/scout/*"]), matches(PurePath("study/a.PNG"), ["*.png"])
        (True, True)
    """
    whole, name = path.as_posix().lower(), path.name.lower()
    trimmed = [pattern.lower().rstrip("/") for pattern in patterns]
    tried = [(pattern, (whole, f"/{whole}") if "/" in pattern else (name,)) for pattern in trimmed]
    return any(fnmatch.fnmatchcase(text, pattern) for pattern, texts in tried for text in texts)


def holds_results(folder: Path) -> bool:
    """Whether a run of this program has written its results into a folder, finished or not."""
    try:
        records = sorted(folder.glob("*_record.json"))
        return any(
            path.is_file() and holds_mark(path, _MARK_BYTES)
            for path in (*(folder / name for name in _MARKS), *records[:1])
        )
    except OSError:
        return False


def format_of(file: SkippedFile) -> SkippedFile:
    """A file that is no DICOM, with the name of its format if it is, or holds, images that are not read.

    The reasons of those end in :data:`NOT_READ`. Whatever is not known stays ``"not DICOM"``.
    """
    path = file.path
    name = path.name.lower()
    ending = next((ending for ending in _VOXELS if name.endswith(ending)), "")
    if ending and any(path.with_name(path.name[: -len(ending)] + header).is_file() for header in _HEADERS[:3]):
        return SkippedFile(path, "voxels of a header beside it")
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError:
        return file
    found = next((word for at, magic, word in _BEGINNINGS if start[at : at + len(magic)] == magic), None)
    if start.startswith(b"PK\x03\x04") and path.suffix.lower() in (".zip", ""):  # not of offices and of NumPy
        found = "ZIP archive"
    found = found or _ENDINGS.get(path.suffix.lower())
    if found is None:
        return file
    if "archive" in found or "compressed" in found:
        way = "Unpack it first."
    elif "suffix" in found:
        way = "Give its name the usual suffix."
    else:
        way = "Save it as DICOM, NIfTI, PNG or TIFF first."
    return SkippedFile(path, found + NOT_READ, f"It is a {found}. {way}")


def holds_mark(path: Path, within: int) -> bool:
    """Whether a file says in its first bytes that it is of this program.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return RESEARCH_USE_ONLY.encode() in stream.read(within)


def mode_of_input(root: Path) -> int:
    """Kind of a file or folder that was given as an input, as in :mod:`stat`.

    Raises:
        UnreadableInputError: it does not exist, or cannot be opened.
    """
    try:
        mode = _mode(root)
    except OSError as error:
        reason = "you have no permission" if isinstance(error, PermissionError) else error.strerror
        raise UnreadableInputError(f"Input {str(root)!r} cannot be opened: {reason}.") from error
    if mode is None:
        raise UnreadableInputError(f"Input {str(root)!r} does not exist: give a file or a folder.")
    return mode


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
