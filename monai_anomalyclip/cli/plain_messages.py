# Copyright (c) monai_anomalyclip authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
