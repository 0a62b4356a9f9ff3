# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Names of files and folders on the command line of ``python -m monai.bundle``, which reads some of them as values.

Python Fire, by which MONAI reads that line, makes 100000.0 of the folder ``1e5``, 1000 of ``1_000``, a list of ``[1]``,
``a`` of ``a#b``, and nothing at all of ``None``: another folder would be read or written, without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["check_path_arguments"]

_SINGLE = ("bundle_root", "output_dir", "model_dir", "cache_dir", "datalist", "prompts", "model_file")
_SEVERAL = ("dataset_dir",)  # may also be a list of texts


def check_path_arguments(arguments: Sequence[str]) -> None:
    """Refuse a path that Python Fire would change.

    Args:
        arguments: the command line, such as ``sys.argv``.

    Raises:
        ValueError: a path would be changed; the message says how to write it.

    Example:
        >>> check_path_arguments(["run", "--dataset_dir", "./1e5", "--output_dir=results"])
        >>> check_path_arguments(["run", "--dataset_dir", "1e5"])
        Traceback (most recent call last):
        ...
        ValueError: --dataset_dir 1e5 would be read as 100000.0: write ./1e5
    """
    from fire.parser import DefaultParseValue  # MONAI needs it for that command alone

    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        key, assigned, text = word.partition("=")
        name = key.lstrip("-").replace("-", "_")
        if not key.startswith("-") or name not in (*_SINGLE, *_SEVERAL):
            continue
        text = text if assigned else following
        value = DefaultParseValue(text)
        if value == text or _meant(value, text, name):
            continue
        raise ValueError(f"--{name} {text} would be read as {value!r}: write ./{text}")


def _meant(value: Any, text: str, name: str) -> bool:
    """Whether somebody wrote a text in quotes, or a list of several paths."""
    if isinstance(value, str):
        return text[:1] in ("'", '"')
    several = name in _SEVERAL and isinstance(value, list | tuple) and len(value) > 0
    return several and all(isinstance(part, str) for part in value)
