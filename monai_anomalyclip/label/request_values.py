# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Names, JSON and options that a client sends to the label server, taken as hostile until they were looked at here.

MONAI Label 0.8.5 makes paths of names, stores any JSON, and hands options on to worker processes as they are. What
these functions refuse could otherwise write outside the studies, run code, or make the server fail from then on.
"""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

__all__ = ["RESERVED_INFO", "check_info", "check_options", "json_object", "lies_inside", "plain_name", "series_uid"]

RESERVED_INFO = frozenset({"path", "name", "ts", "strategy", "normal"})
"""Keys of an image's info that the server writes itself and relies on; so are all that begin with ``anomaly_``."""

_NAME_BYTES = 240  # leaves room for a suffix in the 255 that file systems take
_JSON_CHARACTERS = 65_536  # options become an argument of a worker process, of which Linux takes 128 KiB
_JSON_DEPTH = 16
_SHOWN = 60

# Result files that the writers of MONAI Label and this package can make, and the numbers that all of them take.
_EXTENSIONS = (".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".png", ".jpg", ".tif")
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "threshold": (0, 1),
    "min_poly_area": (0, 1e9),
    "max_epochs": (1, 10_000),
    "learning_rate": (0, 10),
    "train_batch_size": (1, 10_000),
    "max_samples": (0, 1e9),
    "max_batch_size": (0, 1e9),
    "max_workers": (0, 256),
    "timeout": (0, 86_400),
}
_WHOLE = frozenset({"max_epochs", "train_batch_size", "max_samples", "max_batch_size", "max_workers"})
_LISTS_OF_CHOICES = ("device", "preset")  # clients that do not know an option send all choices, the first holds
_SWITCHES = ("save_label", "result_compress", "multi_gpu")
_SETS = ("all", "labeled", "unlabeled")
# What only the server itself may set: the image's path, and what MONAI Label puts on a worker's search path for code.
_SERVERS_OWN = ("image", "session", "bundle_path", "local_rank", "result_write_to_file", "description")


def plain_name(value: object, what: str = "The name") -> str:
    """A name that can be part of a path without leading elsewhere, as it is.

    Args:
        value: what a client sent.
        what: it is, for the message.

    Raises:
        ValueError: it is empty, ``.``, ``..``, a path (absolute, with a separator of any system, or with a drive),
            longer than 240 bytes, or holds control characters.

    Example:
        >>> plain_name("brain_00")
        'brain_00'
    """
    if isinstance(value, str):
        text = str.__str__(value)  # MONAI Label's tags are members of an enumeration
        plain = text not in ("", ".", "..") and PureWindowsPath(text).name == text
        if plain and not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
            if len(text.encode()) <= _NAME_BYTES:
                return text
            raise ValueError(f"{what} is longer than {_NAME_BYTES} bytes: send a shorter one.")
    raise ValueError(f"{what} must be a plain name, without separators or control characters, got {_shown(value)}.")


def series_uid(value: object, what: str = "The image") -> str:
    """A DICOM UID, as it is.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and len(value) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)*", value, re.ASCII):
        return value
    raise ValueError(f"{what} of an archive must be the UID of a series, got {_shown(value)}.")


def lies_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path leads into a folder when all links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def json_object(text: str | bytes, what: str = "params") -> dict[str, Any]:
    """Parse a JSON object that may be stored and sent on.

    Args:
        text: what a client sent.
        what: it is, for the message.

    Raises:
        ValueError: it is no JSON object, too large or too deeply nested, or holds what other JSON readers refuse: NaN,
            infinite numbers, lone surrogates. A datastore with such a value could not be read any more.

    Example:
        >>> json_object('{"threshold": 0.5}')
        {'threshold': 0.5}
    """
    try:
        value = json.loads(text)
        compact = json.dumps(value, allow_nan=False)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError(f"{what} is no valid JSON: send an object such as {{}}, without NaN or infinity.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object such as {{}}, got {_shown(value)}.")
    if len(compact) > _JSON_CHARACTERS:
        raise ValueError(f"{what} has {len(compact)} characters: at most {_JSON_CHARACTERS} are taken.")
    if _depth(value) > _JSON_DEPTH:
        raise ValueError(f"{what} is nested more than {_JSON_DEPTH} deep.")
    return value


def check_info(info: Mapping[str, Any]) -> None:
    """Refuse to store under keys that the server writes itself, which would mislead or break it.

    Raises:
        ValueError: there is such a key.
    """
    taken = sorted(key for key in info if key in RESERVED_INFO or key.startswith("anomaly_"))
    if taken:
        raise ValueError(f"The server itself keeps {', '.join(map(repr, taken))} with an image: choose other names.")


def check_options(options: Mapping[str, Any], devices: Collection[str], *, own: Collection[str] = ()) -> None:
    """Look at the options of a request that mean something to the server; others are left alone.

    Args:
        options: by name, as :func:`json_object` gives them.
        devices: names of devices that there are.
        own: options of those that only the server may set which it did set here.

    Raises:
        ValueError: an option has no such value, or is not the client's to set.
    """
    for name in _SERVERS_OWN:
        if name in options and name not in own:
            raise ValueError(f"{name!r} is no option of a request.")
    for name, limits in _NUMBERS.items():
        if name in options:
            _check_number(name, options[name], *limits)
    for name in _LISTS_OF_CHOICES:
        choice = options.get(name, "")
        first = choice[0] if isinstance(choice, list | tuple) and choice else choice
        if not isinstance(first, str) and not (name == "device" and first is None):
            raise ValueError(f"{name} must be one of the names that /info/ lists, got {_shown(choice)}.")
        if name == "device" and first and not _is_device(first, devices):
            raise ValueError(f"There is no device {_shown(first)} here, but: {', '.join(devices)}.")
    for name in _SWITCHES:
        if name in options and str(options[name]).lower() not in ("true", "false", "none", "0", "1"):
            raise ValueError(f"{name} must be true or false, got {_shown(options[name])}.")
    for name, values in (("result_extension", _EXTENSIONS), ("result_dtype", _DTYPES)):
        if options.get(name) and options[name] not in values:
            raise ValueError(f"{name} must be one of {', '.join(values)}, got {_shown(options[name])}.")
    if "label_tag" in options and options["label_tag"] is not None:
        plain_name(options["label_tag"], "label_tag")
    if options.get("gpus") and not re.fullmatch(r"all|[0-9]{1,3}(,[0-9]{1,3})*", str(options["gpus"]), re.ASCII):
        raise ValueError(f"gpus must be 'all' or numbers such as '0,1', got {_shown(options['gpus'])}.")
    images = options.get("images")
    if isinstance(images, list):
        for name in images:
            plain_name(name, "Each of images")
    elif images is not None and images not in _SETS:
        raise ValueError(f"images must be a list of names or one of {', '.join(_SETS)}, got {_shown(images)}.")
    _check_label_info(options.get("label_info"))


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if name == "threshold" and value in ("calibrated", ["calibrated"]):
        return
    if name != "threshold" and isinstance(value, list | tuple) and value:
        value = value[0]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
        whole = name not in _WHOLE or int(value) == number
    except (OverflowError, TypeError, ValueError):
        number, whole = math.nan, True
    if not (least <= number <= most and whole):
        kind = "one whole number" if name in _WHOLE else "one number"
        word = " or 'calibrated'" if name == "threshold" else ""
        raise ValueError(f"{name} must be {kind} in {least:g}..{most:g}{word}, got {_shown(value)}.")


def _check_label_info(segments: Any) -> None:
    """What MONAI Label makes the segments of a DICOM segmentation of."""
    if segments is None:
        return
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise ValueError(f"label_info must be a list of objects, one for each segment, got {_shown(segments)}.")
    for segment in segments:
        for name in ("name", "description", "model_name"):
            if not isinstance(segment.get(name, ""), str):
                raise ValueError(f"{name} of label_info must be text, got {_shown(segment[name])}.")
        colour = segment.get("color", [0, 0, 0])
        if not isinstance(colour, list) or not all(isinstance(part, int | float) for part in colour):
            raise ValueError(f"color of label_info must be a list of numbers, got {_shown(colour)}.")
        if not isinstance(segment.get("segmentAttribute", {}), dict):
            raise ValueError(f"segmentAttribute of label_info must be an object, got {_shown(segment)}.")


def _is_device(name: str, devices: Collection[str]) -> bool:
    # Where there is no GPU, MONAI Label takes every name of one for the CPU.
    no_gpu = set(devices) <= {"cpu"} and re.fullmatch(r"cuda(:[0-9]{1,3})?", name, re.ASCII) is not None
    return no_gpu or name == "cpu" or name in devices


def _depth(value: Any) -> int:
    """Levels of nesting; what was parsed cannot be deeper than the parser goes."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return deepest


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
