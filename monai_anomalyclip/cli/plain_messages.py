# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What a command's user sees of warnings and logs: one sentence, without the place in the code."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["plain_messages"]


@contextmanager
def plain_messages(verbose: bool) -> Iterator[None]:
    """Within the block show warnings as plain sentences and leave out what other libraries say of the command's inside.

    Settings are those of before afterwards: a command may be one step of a longer program, a notebook for example.

    Args:
        verbose: show the libraries' messages, too.
    """
    levels = {"monai.bundle.workflows": logging.ERROR}  # that there is no logging.conf is meant
    if not verbose:
        levels["ignite"] = logging.CRITICAL  # it, too, reports the exception that ends the command
    before = {name: logging.getLogger(name).level for name in levels}
    formatted = warnings.formatwarning
    with warnings.catch_warnings():
        # The bundle was named on the command line, as a program would be.
        warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        if not verbose:
            warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
        try:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            yield
        finally:
            warnings.formatwarning = formatted
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
