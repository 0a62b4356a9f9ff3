# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Small files of every kind that is read, and what can be done to them; run, it cuts every DICOM file off.

A study of two files, of which one is cut at many lengths: the run must end with status 3 and a warning of the series
that lacks it, unless what was cut off changes no pixel. The exit status is 1 when a length did otherwise.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.filereader import read_dataset
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32
from small_files import CANARY, SEEDS, make_slice

from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.errors import UnreadableInputError

__all__ = ["CANARY", "KINDS", "SEEDS", "Damage", "cut_outcomes", "damaged"]

EXAMPLES = """examples:
  python benchmarks/damaged_files.py
  python benchmarks/damaged_files.py --lengths 400 --only jpeg.dcm
"""

KINDS = ("set", "number", "cut", "drop", "repeat", "insert", "value", "value", "value", "VR", "remove")
"""What can be done to a file; the last ones to an element of a DICOM data set, elsewhere they set a byte."""

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_VALUES = (
    b"", b"\0\0", b"\xff\xff", b"\x01\0", b"\x11\0", b"-1", b"0", b"1e400", b"nan", b"1\\2", b"0\\0\\0\\0\\0\\0",
    b"1\\0\\0\\1\\0\\0", b"99999999999999999999", CANARY.encode(), CANARY.upper().encode(),
    f"{CANARY}^Jane".encode(), b"\\\\\\", b"\0" * 8, b"\xff" * 8, b"7" * 40,
    b"1.2.840.10008.1.2.4.50", b"MONOCHROME1", b"PALETTE COLOR", b"YBR_FULL_422", b"RGB", b"\x08\0", b"\x03\0",
    b"\x10\0", b"1\\2\\3", b"-1\\-1", b"\xe4\xf6\xfc", b"$(x)",
)  # fmt: skip

_VRS = ("XX", "UN", "SQ", "OB", "US", "FD", "PN", "DS", "IS", "AT", "DA")


class Damage(NamedTuple):
    """One thing that is done to a file: which, where (0 to 1), and with which number."""

    kind: str
    place: float
    number: int


def damaged(seed: str, damages: Sequence[Damage]) -> bytes:
    """A file of `SEEDS` after some damages, which may leave it as it was. Deflated data sets are damaged inflated."""
    data = _bytes(seed)
    elements = [damage for damage in damages if damage.kind in ("value", "VR", "remove") and seed.endswith(".dcm")]
    start = 144 + int.from_bytes(data[140:144], "little") if seed == "deflated.dcm" else 0
    if start:
        data = data[:start] + zlib.decompress(data[start:], -zlib.MAX_WBITS)
    places = _places(seed, data)
    chosen = {places[int(damage.place * len(places))]: damage for damage in elements}
    for place in sorted(chosen, reverse=True):  # from the end, so that what lies before stays where it is
        data = data[: place.start] + _element(data, place, chosen[place]) + data[place.end :]
    for damage in damages:
        if damage not in elements:
            data = _apply(data, damage)
    if not start:
        return data
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[:start] + deflate.compress(data[start:]) + deflate.flush()


def _apply(data: bytes, damage: Damage) -> bytes:
    place, number = int(damage.place * len(data)), damage.number
    length = 1 + number % 64
    if damage.kind == "number":
        width = (1, 2, 4, 8)[number % 4]
        value = _NUMBERS[number // 4 % len(_NUMBERS)] % 2 ** (8 * width)
        return data[:place] + value.to_bytes(width, ("little", "big")[number // 64 % 2]) + data[place + width :]
    if damage.kind == "cut":
        return data[:place]
    if damage.kind == "drop":
        return data[:place] + data[place + length :]
    if damage.kind == "repeat":
        return data[:place] + data[place : place + length] * (2 + number % 3) + data[place + length :]
    if damage.kind == "insert":
        return data[:place] + number.to_bytes(4, "little") * (1 + number % 5) + data[place:]
    return data[:place] + bytes([number % 256]) + data[place + 1 :]


class _Place(NamedTuple):
    """Where an element of a DICOM file begins, where its value does, where it ends, and how it is encoded."""

    start: int
    value: int
    end: int
    vr: str
    implicit: bool
    little: bool


@cache
def _places(seed: str, data: bytes) -> list[_Place]:
    """The elements of an undamaged DICOM file, also those within items, without sequences and pixels."""
    if not seed.endswith(".dcm"):
        return []
    stream = io.BytesIO(data)
    if seed == "deflated.dcm":  # which was inflated
        stream.seek(144 + int.from_bytes(data[140:144], "little"))
        dataset = read_dataset(stream, False, True)
    else:
        dataset = dcmread(stream)
    return _places_within(dataset)


def _places_within(dataset: Dataset) -> list[_Place]:
    found = []
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        if not element.is_raw:
            for item in element.value:
                found += _places_within(item)
        elif tag != 0x7FE00010:
            long = element.VR in EXPLICIT_VR_LENGTH_32 and not element.is_implicit_VR
            begin, end = element.value_tell - (12 if long else 8), element.value_tell + element.length
            found.append(
                _Place(begin, element.value_tell, end, element.VR, element.is_implicit_VR, element.is_little_endian)
            )
    return found


def _element(data: bytes, place: _Place, damage: Damage) -> bytes:
    """What stands in the place of an element."""
    if damage.kind == "remove":
        return b""
    order = "little" if place.little else "big"
    tag, value, vr = data[place.start : place.start + 4], _VALUES[damage.number % len(_VALUES)], place.vr
    if damage.kind == "VR":
        value, vr = data[place.value : place.end], _VRS[damage.number % len(_VRS)]
    value += b" " * (len(value) % 2)
    if place.implicit:
        return tag + len(value).to_bytes(4, order) + value
    if vr in EXPLICIT_VR_LENGTH_32:
        return tag + vr.encode() + b"\0\0" + len(value).to_bytes(4, order) + value
    return tag + vr.encode() + len(value).to_bytes(2, order) + value


@cache
def _bytes(seed: str) -> bytes:
    made = SEEDS[seed]()
    if isinstance(made, bytes):
        return made
    for element in made:
        if element.VR == "SQ":  # items of undefined length, so that what is longer still fits in
            _leave_lengths_open(element)
    stream = io.BytesIO()
    implicit, little = made.original_encoding
    made.save_as(stream, implicit_vr=implicit, little_endian=little)
    return stream.getvalue()


def _leave_lengths_open(sequence: DataElement) -> None:
    sequence.is_undefined_length = True
    for item in sequence.value:
        item.is_undefined_length_sequence_item = True
        for element in item:
            if element.VR == "SQ":
                _leave_lengths_open(element)


def cut_outcomes(seed: str, lengths: int, folder: Path, suffix: str = ".dcm") -> Counter[str]:
    """Cut a DICOM file at so many lengths, beside a sound one of its series, and count what happens.

    Args:
        seed: of `SEEDS`, a DICOM file.
        lengths: evenly spread from 0 on.
        folder: where the two files are written.
        suffix: of their names.

    Returns:
        Counts of ``"damaged, series warned"``, ``"unreadable"`` (status 3 both), ``"whole"`` (nothing of the pixels is
        missing) and of faults, which begin with ``"FAULT"``.
    """
    whole, beside = _bytes(seed), make_slice()
    beside.SOPInstanceUID, beside.ImagePositionPatient = "1.2.99", [0, 0, 2]
    beside.save_as(folder / f"beside{suffix}", implicit_vr=False, little_endian=True)
    path = folder / f"cut{suffix}"
    path.write_bytes(whole)
    expected = _contents(folder)
    counts: Counter[str] = Counter()
    for length in (len(whole) * number // lengths for number in range(lengths)):
        path.write_bytes(whole[:length])
        counts[_outcome(folder, expected, length)] += 1
    return counts


def _outcome(folder: Path, expected: list[bytes], length: int) -> str:
    catalogue = InputCatalogue(folder)
    if any(file.damaged for file in catalogue.skipped):
        notes = [note for source in catalogue.sources.values() for note in source.series.notes]
        warned = any("amaged files" in note for note in notes)
        return "damaged, series warned" if warned else f"FAULT: no series warned at {length}"
    try:
        return "whole" if _contents(folder) == expected else f"FAULT: status 0 with other pixels at {length}"
    except UnreadableInputError:
        return "unreadable"


def _contents(folder: Path) -> list[bytes]:
    sources = InputCatalogue(folder).sources.values()
    return [np.asarray(source.load()).tobytes() for source in sources]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, default=40, metavar="N", help="at which each file is cut (default: 40)")
    parser.add_argument("--only", default=".dcm", metavar="TEXT", help="files whose names hold this text")
    options = parser.parse_args(arguments)
    total: Counter[str] = Counter()
    for seed in (seed for seed in SEEDS if seed.endswith(".dcm") and options.only in seed):
        for suffix in (".dcm", ""):
            with tempfile.TemporaryDirectory() as folder:
                counts = cut_outcomes(seed, options.lengths, Path(folder), suffix)
            print(f"{seed:16} named {suffix or 'without suffix':16} {dict(counts)}")
            total += counts
    faults = sum(count for outcome, count in total.items() if outcome.startswith("FAULT"))
    print(f"{total.total()} cuts: {total.total() - faults} as they should be, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
