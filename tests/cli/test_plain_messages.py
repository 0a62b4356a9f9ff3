# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest

from monai_anomalyclip.cli.plain_messages import damaged_files, plain_messages, text_table
from monai_anomalyclip.data.dicom.series import DAMAGED

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


def test_nothing_is_said_of_a_file_that_is_not_meant_to_be() -> None:
    """MONAI's logger is made, with its own level, while the command runs."""
    script = (
        "import logging\n"
        "from monai_anomalyclip.cli.plain_messages import plain_messages\n"
        "with plain_messages(False):\n"
        "    from monai.bundle import workflows\n"
        "    workflows.logger.warning('Logging file is set to False, skipping logging.')\n"
        "    workflows.logger.error('wrong')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Logging file" not in done.stdout + done.stderr
    assert "wrong" in done.stdout + done.stderr


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


LOG = """
import io, logging, sys
from monai_anomalyclip.cli.plain_messages import plain_messages
for _ in range(2):
    sys.stderr = io.StringIO()
    with plain_messages({verbose}):
        logging.getLogger("any").info("said")
        logging.getLogger("any").warning("warned")
    print(sys.stderr.getvalue().count("INFO said"), sys.stderr.getvalue().count("WARNING warned"))
print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)
"""


@pytest.mark.parametrize(("verbose", "counts"), [(False, "0 1"), (True, "1 1")])
def test_the_log_is_the_commands_own(verbose: bool, counts: str) -> None:
    """It goes to where standard error is now, and nothing of it stays for the program that ran the command."""
    shown = subprocess.run(
        [sys.executable, "-c", LOG.format(verbose=verbose)], capture_output=True, text=True, check=True
    ).stdout
    assert shown == f"{counts}\n{counts}\n[] True\n"


def test_columns_are_aligned_below_their_heading() -> None:
    table = text_table([("input", "n"), ("a", "10"), ("longer name", "")])
    assert table.split("\n") == ["input        n", "-----------  --", "a            10", "longer name"]


def test_heading_alone() -> None:
    assert text_table([("a", "bc")]) == "a  bc\n-  --"


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Rows have \[1, 2\] columns"):
        text_table([("a", "b"), ("c",)])


@pytest.mark.parametrize(
    ("left_out", "count"),
    [
        ({}, 0),
        ({"damaged header": 2, "not DICOM": 3}, 2),
        ({"unreadable": 1, "header too large": 1, "deflated too large": 1, "too large": 1}, 4),
        (
            {"localizer series": 1, "segmentation": 4, "no image": 1, "duplicate file": 1, "link out of the folder": 1},
            0,
        ),
    ],
)
def test_what_is_damaged(left_out: dict[str, int], count: int) -> None:
    assert damaged_files(left_out) == count


def test_codes_of_damage_are_those_of_the_reader() -> None:
    assert all(damaged_files({code: 1}) for code in DAMAGED)
    assert damaged_files({**dict.fromkeys(DAMAGED, 1), "no image": 1}) == len(DAMAGED)
