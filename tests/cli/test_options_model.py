# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
from pathlib import Path

from monai_anomalyclip.cli.options import add_model_options, run_options


def test_what_is_said_and_what_is_not() -> None:
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    plain = run_options(parser.parse_args([]), {"outputs": ["seg"]})
    assert (plain.bundle, plain.configs, plain.ids) == (None, (), {"keep_names": False, "outputs": ["seg"]})
    words = ["--bundle", "b", "--prompts", "p.pt", "--preset", "ct-lung", "--device", "cpu", "--config", "c.json"]
    said = run_options(parser.parse_args(words), {})
    assert (said.bundle, said.prompts, said.configs) == (Path("b"), Path("p.pt"), (Path("c.json"),))
    assert said.ids == {"reading#preset": "ct-lung", "device": "cpu", "keep_names": False}
