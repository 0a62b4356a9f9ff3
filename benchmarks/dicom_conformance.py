# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of every DICOM series below a folder: read, judged, scored by the demonstration bundle, written.

Folders are processed each for itself, as far as their own files go; where the same image is there several times (in
other transfer syntaxes, say), file by file. The table names folders and says nothing else of the files' texts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import highdicom
import pydicom

import monai_anomalyclip
from monai_anomalyclip.cli import main as command
from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.sources import DicomSource
from monai_anomalyclip.demo.network import demo_network

BUNDLE = Path(__file__).parents[1] / "bundles" / "anomalyclip_demo"
NETWORK = {"prompt_length": 12, "deep_prompt_depth": 4, "deep_prompt_length": 4}  # of the bundle's configuration
COLUMNS = ("folder", "files", "what", "geometry", "transfer syntax", "result")
OUTPUTS = {"seg": "SEG", "sr": "SR", "pm": "PM", "map": "NIfTI", "heat": "PNG", "overlay": "overlay", "frames": "film"}
EXAMPLES = """examples:
  python benchmarks/dicom_conformance.py samples -o docs/appendix/dicom_conformance.md
"""


@dataclass
class Unit:
    """Files that are processed together.

    Args:
        folder: relative to the input.
        files: paths.
        rows: of the table.
    """

    folder: str
    files: list[Path]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def series(self) -> set[str]:
        """UIDs, which never leave this program."""
        catalogue = InputCatalogue(self.files, empty=True)
        found = [source.series for source in catalogue.sources.values() if isinstance(source, DicomSource)]
        return {series.series_uid for series in [*found, *catalogue.excluded]}


def find_units(root: Path) -> list[Unit]:
    """The folders that hold DICOM images; the files of one that repeats itself are units of their own."""
    units = []
    for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if not files:
            continue
        name = folder.relative_to(root).as_posix()
        catalogue = InputCatalogue(files, empty=True)
        others = {path for source in catalogue.sources.values() if source.origin != "dicom" for path in source.paths}
        files = [path for path in files if path not in others]
        codes = Counter(skipped.code for skipped in catalogue.skipped)
        if not catalogue.excluded and not any(source.origin == "dicom" for source in catalogue.sources.values()):
            continue
        alone = "duplicate UID" in codes
        units += [Unit(name, [path]) for path in files] if alone else [Unit(name, files)]
    return units


def rounds_of(units: Sequence[Unit]) -> list[list[Unit]]:
    """Units for one run each: no series is in a run twice, for it would be taken for one."""
    rounds: list[tuple[set[str], list[Unit]]] = []
    for unit in units:
        own = unit.series()
        taken, members = next((one for one in rounds if not one[0] & own), (set[str](), list[Unit]()))
        if not members:
            rounds.append((taken, members))
        taken |= own
        members.append(unit)
    return [members for _, members in rounds]


def process(units: Sequence[Unit], folder: Path, prompts: Path) -> Counter[str]:
    """Run the bundle over some units, and fill in their rows; count DICOM results and dciodvfy's errors in them."""
    files = [path for unit in units for path in unit.files]
    options = ["-o", str(folder), "--bundle", str(BUNDLE), "--prompts", str(prompts), "--outputs", "default,pm"]
    with contextlib.redirect_stdout(io.StringIO()):
        command(["predict", *map(str, files), *options])
    found: Counter[str] = Counter()
    for path in folder.glob("*.dcm"):
        checked = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        found["objects"] += 1
        found["errors"] += sum(line.startswith("Error") for line in (checked.stdout + checked.stderr).splitlines())
    records = {record["name"]: record for record in json.loads((folder / "results.json").read_text())["inputs"]}
    catalogue = InputCatalogue(files, empty=True)
    for unit in units:
        own = set(unit.files)
        for name, source in catalogue.sources.items():
            if own & set(source.paths):
                assert isinstance(source, DicomSource)
                series = source.series
                unit.rows.append(
                    (unit.folder, str(len(source.paths)), _what(series), _geometry(series), *_result(records[name]))
                )
        for series in catalogue.excluded:
            if own & {instance.path for instance in series.instances}:
                files_used = str(len(series.instances))
                syntax = pydicom.uid.UID(series.instances[0].transfer_syntax).name
                left_out = f"left out: {series.excluded}"
                unit.rows.append((unit.folder, files_used, _what(series), _geometry(series), syntax, left_out))
        skipped = Counter(file.code for file in catalogue.skipped if file.path in own)
        unit.rows += [(unit.folder, str(count), "", "", "", f"skipped: {code}") for code, count in skipped.items()]
    return found


def _what(series: Any) -> str:
    size = f"{len(series.frames)} x {series.size[0]} x {series.size[1]}"
    part = f", {series.split}" if series.split else ""
    return f"{series.modality} {series.kind}{' in colour' if series.colour else ''}, {size}{part}"


def _geometry(series: Any) -> str:
    geometry = series.geometry
    verdict = str(geometry.verdict)
    if geometry.missing_slices:
        verdict += f", {geometry.missing_slices} missing"
    if "gantry tilt" in geometry.flaws:
        verdict += f", {geometry.tilt_degrees:.1f} degrees"
    return verdict


def _result(record: dict[str, Any]) -> tuple[str, str]:
    syntaxes = ", ".join(record["transfer_syntaxes"])
    if record["status"] != "ok":
        return syntaxes, f"failed: {record['reason']}"
    endings = {output.removeprefix(f"{record['name']}_").partition(".")[0] for output in record["outputs"]}
    return syntaxes, ", ".join(label for ending, label in OUTPUTS.items() if ending in endings)


def table(units: Sequence[Unit]) -> str:
    """Markdown; equal rows of one folder become one."""
    rows = Counter(row for unit in units for row in unit.rows)
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    for (folder, files, *others), count in rows.items():
        total = str(int(files) * count)
        lines.append(" | ".join((f"`{folder}`", total, *(text.replace("|", "/") for text in others))))
    return "\n".join(f"| {line} |" for line in lines)


def document(units: Sequence[Unit], found: Counter[str]) -> str:
    """The whole page."""
    rows = [row for unit in units for row in unit.rows]
    ends = Counter(row[-1].partition(":")[0] if ":" in row[-1] else "scored" for row in rows)
    said = ", ".join(f"{ends[end]} {end}" for end in ("scored", "left out", "failed") if ends[end])
    return f"""# DICOM series that were tested

Made by `python benchmarks/dicom_conformance.py INPUT -o docs/appendix/dicom_conformance.md` with monai_anomalyclip
{monai_anomalyclip.__version__}, pydicom {pydicom.__version__}, highdicom {highdicom.__version__}; do not edit.

INPUT holds sample files of the public repositories icometrix/dicom2nifti, neurolabusc/dcm_qa, cornerstonejs and
pydicom/pydicom-data, which are not part of this one. Every folder is processed for itself, and where it holds the same
image several times, file by file. The network is the demonstration's with prompts that are not tuned: the table shows
what can be read, judged and written, not what is found.

Series: {said}. dciodvfy (dicom3tools) found {found["errors"]} errors in the {found["objects"]} DICOM objects that
were written (SEG, SR, PM).

{table(units)}

- files: of the series, or skipped ones.
- what: modality and kind, frames x rows x columns; for a series that was cut into stacks, which part it is.
- geometry: the verdict on the positions of the slices.
- result: the files that were written (besides tables and report), why a series is left out unless it is asked for
  (`--series`), or why it failed.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="folder; the names of the folders in it become public")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Markdown file to write")
    options = parser.parse_args(arguments)
    units = find_units(options.input)
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder, "untuned.pt")
        demo_network(**NETWORK).save_prompts(prompts)
        found: Counter[str] = Counter()
        for number, members in enumerate(rounds_of(units)):
            found += process(members, Path(folder, str(number)), prompts)
    options.output.write_text(document(units, found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
