# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Run every command of the README in this clone, as its reader does; CI does so before the tests, which must not mind.

python tools/run_readme.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def commands(document: str = "README.md") -> list[str]:
    """The commands of a page as printed, in their order; blocks of ``sh`` need data of one's own."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (REPOSITORY / document).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def main() -> int:
    """Run them one after the other; the exit status is that of the first that fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in commands():
        print(f"\n$ {line}", flush=True)
        status = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, env={**os.environ, "PATH": path}).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
