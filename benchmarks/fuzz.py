# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Damage small DICOM, NIfTI and picture files at random and process them: every case ends soon, in one sentence.

A fault is any exception but those for the user, a message of several lines or with text of a DICOM file, a hang, the
end of the process, or memory that grows beyond a bound. The exit status is 1 when there was one; its file is kept.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bounded_reading import BoundedReader, Outcome
from damaged_files import CANARY, KINDS, SEEDS, Damage, damaged
from fuzz_pictures import check_pictures
from tqdm import tqdm

FILE_STEM = "Zebrafile"
"""Of the damaged files: a name that must not reach standard error."""

LONGEST_SENTENCE = 600
MEBIBYTE = 2**20
EXAMPLES = """examples:
  python benchmarks/fuzz.py                               2,000 cases, some seconds
  python benchmarks/fuzz.py --write --only .dcm           also score what can be read and write all its results
  python benchmarks/fuzz.py --cases 300 --only .png --seed 7
  python benchmarks/fuzz.py --cases 20000 --keep faults
  python benchmarks/fuzz.py --pictures 2000               valid but odd pictures, compared with what they were made of
"""


def random_damages(source: random.Random) -> list[Damage]:
    """One to four damages."""
    count = source.choice((1, 1, 2, 3, 4))
    return [Damage(source.choice(KINDS), source.random(), source.getrandbits(32)) for _ in range(count)]


def fault_of(outcome: Outcome, mebibytes: int) -> str:
    """What is wrong with how a case went, or ""."""
    if outcome.fault:
        return outcome.fault
    if outcome.grown > mebibytes * MEBIBYTE:
        return f"memory grew by {outcome.grown // MEBIBYTE} MiB"
    for sentence in outcome.sentences:
        if "\n" in sentence or "Traceback" in sentence or len(sentence) > LONGEST_SENTENCE:
            return f"no sentence: {sentence[:2000]!r}"
        if CANARY.lower() in sentence.lower():
            return f"a message repeats text of the file: {sentence!r}"
    for line in outcome.noise.splitlines():
        if any(word.lower() in line.lower() for word in (CANARY, FILE_STEM, "Traceback")):
            return f"standard error tells too much: {line[:2000]!r}"
    return ""


def told_by(results: Path) -> str:
    """What is wrong with the results below a folder, which is removed, or ""."""
    fault = ""
    for path in sorted(results.rglob("*")):
        content = path.read_bytes() if path.is_file() and path.suffix != ".dcm" else b""
        if CANARY.lower().encode() in path.name.lower().encode() + content.lower():
            fault = f"a result repeats text of the file: *{path.suffix}"
    shutil.rmtree(results, ignore_errors=True)
    return fault


def kind_of_fault(fault: str) -> str:
    """Faults that differ in numbers alone are of one kind: for tracebacks, the last place and the exception's name."""
    lines = fault.strip().splitlines()
    places = [line.strip() for line in lines if "monai_anomalyclip" in line and line.lstrip().startswith("File")]
    told = re.sub(r"\d+", "N", lines[-1])[:120]
    return f"{places[-1]}: {told}" if places else told


def run(options: argparse.Namespace) -> int:
    """Run all cases, print a summary."""
    seeds = [seed for seed in SEEDS if seed.endswith(options.only)]
    if not seeds:
        raise SystemExit(f"No seed ends in {options.only!r}: choose from {', '.join(SEEDS)}.")
    source = random.Random(options.seed)
    faults: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    slowest, largest = 0.0, 0
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _reader(options, folder) as reader:
        for case in tqdm(range(options.cases), unit="file", disable=None):
            seed = seeds[case % len(seeds)]
            path = Path(folder, f"{FILE_STEM}{''.join(Path(seed).suffixes)}")
            path.write_bytes(damaged(seed, random_damages(source)))
            outcome = reader.read(path)
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.grown)
            ends["read" if outcome.loaded else "refused"] += 1
            if fault := fault_of(outcome, options.mebibytes) or told_by(Path(folder, "results")):
                kind = kind_of_fault(fault)
                faults[kind] += 1
                if faults[kind] == 1:
                    print(f"\ncase {case} of {seed}:\n{fault}", file=sys.stderr)
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{options.seed}_{case}_{seed}").write_bytes(path.read_bytes())
            path.unlink()
    print(
        f"{options.cases} cases in {time.perf_counter() - begun:.0f} s: {ends['read']} read, {ends['refused']} "
        "refused, "
        f"{sum(faults.values())} faults of {len(faults)} kinds. Slowest {slowest:.2f} s, most memory "
        f"{largest / MEBIBYTE:.0f} MiB."
    )
    for kind, count in faults.most_common():
        print(f"{count:5} x {kind}")
    return int(bool(faults))


def run_pictures(options: argparse.Namespace) -> int:
    """Run valid but odd pictures and damaged copies of them, print a summary."""

    def keep(name: str, content: bytes) -> None:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / name).write_bytes(content)

    told, faults = check_pictures(options.pictures, options.seed, keep)
    print(told)
    for kind, count in faults.most_common():
        print(f"{count:5} x {kind}")
    return int(bool(faults))


def _reader(options: argparse.Namespace, folder: str) -> BoundedReader:
    return BoundedReader(options.seconds, results=Path(folder, "results") if options.write else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--pictures", type=int, metavar="N", help="so many valid but odd pictures instead")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--only", default="", metavar="END", help="seeds whose names end so, such as .dcm")
    parser.add_argument("--seconds", type=float, default=20, help="that a case may take")
    parser.add_argument("--mebibytes", type=int, default=512, help="by which memory may grow")
    parser.add_argument("--write", action="store_true", help="write results, too: some cases a second")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the first file of each kind of fault")
    options = parser.parse_args(arguments)
    return run(options) if options.pictures is None else run_pictures(options)


if __name__ == "__main__":
    sys.exit(main())
