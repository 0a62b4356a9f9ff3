# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""A Python that has imported what is slow, and runs command lines in forks of itself: some ten seconds less each.

Started by `tests/conftest.py`. Reads one request a line, JSON with the arguments of `run`; answers with the exit
status. Requests share nothing but what was imported.
"""

from __future__ import annotations

import json
import os
import runpy
import sys

import highdicom  # noqa: F401
import ignite.engine  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import monai.bundle
import monai.engines
import monai.handlers  # noqa: F401
import open_clip  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch.utils.tensorboard  # noqa: F401


def run(module: str, arguments: list[str], folder: str, environment: dict[str, str], outputs: list[str]) -> None:
    """What ``python -m`` does, in this process, which ends with it.

    Args:
        module: its name.
        arguments: argv.
        folder: to work in.
        environment: of which nothing counts that is read by what was imported here.
        outputs: files for standard output and standard error.
    """
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv, sys.path[0] = arguments, folder
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
