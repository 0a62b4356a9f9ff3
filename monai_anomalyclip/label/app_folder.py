# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Write the folder that MONAI Label starts as an app."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from monai_anomalyclip import RESEARCH_USE_ONLY, __version__

__all__ = ["SETTINGS_FILE", "bundle_of", "write_label_app"]

SETTINGS_FILE = "label_app.json"

_MAIN = '''"""AnomalyCLIP as a MONAI Label app. MONAI Label looks here for a subclass of its MONAILabelApp."""

from monai_anomalyclip.label.app import AnomalyLabelApp

__all__ = ["AnomalyLabelApp"]
'''

_README = f"""# AnomalyCLIP in MONAI Label

> {RESEARCH_USE_ONLY}

Written by `monai-anomalyclip label-app` of monai_anomalyclip {__version__}; documented in its `docs/monai_label.md`.

The app needs an environment of its own, which `make label-env` in the project's folder makes: MONAI Label 0.8.5 asks
for `pydicom<3`. Start it there, for a folder of NIfTI volumes or pictures, or for the DICOMweb address of an archive:

    python -m monailabel.main start_server --host 127.0.0.1 --app <this folder> --studies <folder or address>

- `{SETTINGS_FILE}` names the bundle whose network and settings are used; `--conf bundle <folder>` overrides it.
- `model/prompts.pt` appears when the prompts are re-tuned and is then used instead of the bundle's `models/model.pt`,
  which is never written to. Remove it to go back; what was in use before each tuning is kept in `model/previous`.
- `logs` holds MONAI Label's log, with paths and UIDs of what was looked at.
- Give `--host 127.0.0.1` unless others are meant to reach the server: it asks for no password. It answers only as
  127.0.0.1 or localhost, unless `--conf hosts NAME` gives it further names, and only its own web pages, unless
  `--conf origins ORIGIN` names others.
"""


def write_label_app(folder: str | os.PathLike[str], bundle: str | os.PathLike[str]) -> Path:
    """Write a MONAI Label app that uses a bundle of this package.

    Args:
        folder: made here, all at once.
        bundle: folder of the bundle; named in the app, not copied.

    Returns:
        the folder.

    Raises:
        FileExistsError: the folder exists.
        FileNotFoundError: there is no such bundle.
    """
    target, source = Path(folder), Path(bundle).absolute()
    if not (source / "configs" / "inference.json").is_file():
        raise FileNotFoundError(
            f"There is no bundle at {str(bundle)!r}: --bundle DIR names one with configs/inference.json."
        )
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{str(target)!r} exists: give the name of a new folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (unfinished / "main.py").write_text(_MAIN)
        (unfinished / "README.md").write_text(_README)
        (unfinished / SETTINGS_FILE).write_text(json.dumps({"bundle": str(source)}, indent=4) + "\n")
        unfinished.chmod(0o755)  # mkdtemp's is for its owner only
        os.rename(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def bundle_of(app: str | os.PathLike[str]) -> Path:
    """The bundle that an app folder names.

    Raises:
        FileNotFoundError: it is no folder of :func:`write_label_app`.
        ValueError: its settings are damaged.
    """
    file = Path(app) / SETTINGS_FILE
    if not file.is_file():
        raise FileNotFoundError(f"'{file}' is missing: make the app with `monai-anomalyclip label-app`.")
    try:
        return Path(json.loads(file.read_text())["bundle"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{file}' must hold {{\"bundle\": folder}}: make the app again.") from error
