# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A run of the command line that gets a signal at a place that can be chosen to the step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["run_until"]


def run_until(arguments: Sequence[str], place: str, count: int, number: int) -> None:
    """Run the command line in this process, and send it a signal; ends the process with the exit status.

    Args:
        arguments: without the program's name.
        place: ``"rename"``: a file is complete under its temporary name; ``"score"``: slices are about to be scored.
        count: at which passage of this place, from 1.
        number: of the signal.
    """
    import brightness_network

    from monai_anomalyclip.cli import main

    passages = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **options: Any) -> Any:
            nonlocal passages
            passages += 1
            if passages == count:
                os.kill(os.getpid(), number)
            return function(*values, **options)

        return call

    if place == "rename":
        os.replace = counted(os.replace)
    else:
        brightness_network.BrightnessNetwork.predict = counted(brightness_network.BrightnessNetwork.predict)
    status = main(arguments)
    raise SystemExit(status)
