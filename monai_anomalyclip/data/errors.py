# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The error of an input that cannot be read."""

from __future__ import annotations

__all__ = ["DamagedInputError", "UnreadableInputError"]


class UnreadableInputError(ValueError):
    """An input was refused: the message is one sentence for the user that names the file, never its folder."""


class DamagedInputError(UnreadableInputError):
    """Nothing is left to read, and files are damaged: trying again gives the same."""
