# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest

from monai_anomalyclip.cli.plain_messages import plain_messages

SCRIPT = """
import warnings
from monai_anomalyclip.cli.plain_messages import plain_messages
with plain_messages({verbose}):
    warnings.warn("The scale is unusual.")
    warnings.warn("parsing config_file from the command line")
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_what_a_user_sees(verbose: bool) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(verbose=verbose)], capture_output=True, text=True, check=True
    ).stderr
    assert (shown == "warning: The scale is unusual.\n") is not verbose
    assert "The scale is unusual." in shown
    assert "parsing" not in shown


def test_everything_is_as_before_afterwards() -> None:
    ignite, formatted, filters = logging.getLogger("ignite"), warnings.formatwarning, list(warnings.filters)
    level = ignite.level
    seen = []

    def fail() -> None:
        with plain_messages(verbose=False):
            seen.append(ignite.getEffectiveLevel())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [logging.CRITICAL]
    assert ignite.level == level
    assert warnings.formatwarning is formatted
    assert warnings.filters == filters
