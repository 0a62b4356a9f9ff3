# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Bring the fields of records to what JSON holds, and read them back strictly."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai_anomalyclip.writers.redaction import redacted

__all__ = ["exactly", "json_text", "json_value", "read_version", "rounded", "set_field"]

_NUMBERS_OVER_LINES = re.compile(r"\[\s+(?:(?:-?\d[\d.eE+-]*|null)(?:,\s+|\s+(?=\])))+\]")


def json_value(value: Any, where: str, allow_identifiers: bool = False) -> Any:
    """Bring a value to what JSON holds: lists for sequences and arrays, None for NaN and infinities.

    Args:
        value: text, a number, None, or mappings, sequences and arrays (NumPy, PyTorch) of such.
        where: what to call it in an error.
        allow_identifiers: do not search texts for absolute paths and UIDs.

    Raises:
        ValueError: an absolute path or a UID in a text, a key that is no text, or a value of another type.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str):
        if not allow_identifiers and redacted(value) != value:
            raise ValueError(f"The text of {where} holds an absolute path or a UID: leave it out, or use redacted().")
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        keys = [json_value(key, f"a key of {where}", allow_identifiers) for key in value]
        return {key: json_value(value[key], f"{where}.{key}", allow_identifiers) for key in keys}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [json_value(entry, where, allow_identifiers) for entry in value]
    raise ValueError(f"The {type(value).__name__} of {where} has no place in JSON: give texts, numbers or lists.")


def rounded(value: Any, digits: int) -> Any:
    """The value with all floating-point numbers in it rounded to `digits` decimals."""
    if isinstance(value, list):
        return [rounded(entry, digits) for entry in value]
    if isinstance(value, dict):
        return {key: rounded(entry, digits) for key, entry in value.items()}
    return round(value, digits) if isinstance(value, float) else value


def exactly(values: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    """The values in the order of the names.

    Raises:
        ValueError: no mapping, or a name is missing, or there are others.
    """
    if not isinstance(values, Mapping) or set(values) != set(names):
        got = ", ".join(sorted(map(str, values))) if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(f"{what} must have exactly the keys {', '.join(names)}; got {got or 'none'}.")
    return {name: values[name] for name in names}


def json_text(values: Mapping[str, Any]) -> str:
    """JSON that people can read, too: indented, but lists of numbers on one line.

    Raises:
        ValueError: NaN or an infinity.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    # Line breaks inside of texts are escaped: what matches is a list.
    return _NUMBERS_OVER_LINES.sub(lambda match: f"[{' '.join(match[0][1:-1].split())}]", text) + "\n"


def read_version(text: str, version: str) -> dict[str, Any]:
    """The keys of a JSON text but for its ``schema_version``.

    Raises:
        ValueError: no JSON, no object, or another version.
    """
    values = json.loads(text)
    found = values.pop("schema_version", None) if isinstance(values, dict) else None
    if found != version:
        raise ValueError(
            f"These results have the schema version {found!r}, but this program reads {version!r}: use the version of "
            "monai_anomalyclip that wrote them."
        )
    return dict(values)


def set_field(record: Any, name: str, value: Any) -> None:
    """Set a field of a dataclass that is frozen for everybody but its constructor."""
    object.__setattr__(record, name, value)
