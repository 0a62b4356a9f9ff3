# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

import pytest

from monai_anomalyclip.writers.output_kinds import DEFAULT_OUTPUTS, OUTPUT_KINDS, parse_output_kinds


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ("default", ("nifti", "seg", "sr", "png")),
        (["default"], ("nifti", "seg", "sr", "png")),
        ("pm,default", ("nifti", "seg", "sr", "png", "pm")),
        ("sc, NIfTI ,sc", ("nifti", "sc")),
        (["seg", "nifti"], ("nifti", "seg")),
        ("png,", ("png",)),
        (OUTPUT_KINDS, OUTPUT_KINDS),
        (DEFAULT_OUTPUTS, DEFAULT_OUTPUTS),
    ],
)
def test_kinds_are_put_in_order(given: str | Sequence[str], kinds: tuple[str, ...]) -> None:
    assert parse_output_kinds(given) == kinds
    assert parse_output_kinds(parse_output_kinds(given)) == kinds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "Unknown output nothing: choose from default, nifti, seg, sr, png, pm, sc"),
        ([], "Unknown output nothing"),
        (" , ", "Unknown output nothing"),
        ("nifti,jpeg,avi", "Unknown output avi, jpeg: choose"),
        ("nifti seg", "Unknown output nifti seg: choose"),
    ],
)
def test_unknown_kinds_and_none_are_refused(given: str | Sequence[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_output_kinds(given)
