# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Medical data sets that say of each image whether it is normal, and have no masks."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from monai_anomalyclip.data.datasets.listing import (
    DataSet,
    DataSetInfo,
    Entry,
    Found,
    LayoutError,
    named,
    pictures,
    sub_folder,
)

__all__ = ["DIAGNOSIS_SETS", "read_diagnosis_folders", "read_head_ct"]


def read_diagnosis_folders(
    root: Path, *, class_name: str, normal: tuple[str, ...], anomalous: tuple[str, ...], inside: tuple[str, ...] = ()
) -> Found:
    """Read one folder of normal and one of anomalous images; images may lie in a folder ``images`` within them.

    Args:
        root: folder that holds both, or holds one of the folders ``inside``.
        class_name: class of the entries.
        normal: names of the folder of normal images, in order of preference.
        anomalous: names of the folder of anomalous images.
        inside: where else the two may lie.

    Raises:
        LayoutError: one of the two is missing or empty.
    """
    for place in (root, *(sub_folder(root, name) for name in inside)):
        if place is None:
            continue
        entries: list[list[Entry]] = []
        for label, names in enumerate((normal, anomalous)):
            folder = sub_folder(place, *names)
            images = pictures(folder) or pictures(sub_folder(folder, "images") if folder else None)
            entries.append([Entry(image, label, class_name) for image in images])
        if all(entries):
            return Found(testing=entries[0] + entries[1])
    raise LayoutError(f"folders {normal[0]} (normal) and {anomalous[0]} (anomalous)")


def read_head_ct(root: Path) -> Found:
    """Read ``head_ct/NNN.png`` with the diagnoses of ``labels.csv`` (number of the picture, 1 for a haemorrhage).

    Raises:
        LayoutError: the table or the pictures are missing.
        ValueError: a line of the table is no pair of numbers.
    """
    table = next((path for path in (root / "labels.csv", root / "head_ct" / "labels.csv") if path.is_file()), None)
    images = pictures(sub_folder(root, "head_ct/head_ct")) or pictures(sub_folder(root, "head_ct"))
    if table is None or not images:
        raise LayoutError("labels.csv and the folder head_ct with 000.png, 001.png, ...")
    with table.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row][1:]
    try:
        diagnoses = {int(number): int(haemorrhage) for number, haemorrhage in rows}
    except ValueError as error:
        raise ValueError(f"labels.csv must hold a number and a 0 or 1 in every line: {error}.") from error
    if unknown := set(diagnoses.values()) - {0, 1}:
        raise ValueError(f"labels.csv holds {', '.join(map(str, sorted(unknown)))} as a diagnosis, not 0 or 1.")
    numbers = {image: int(image.stem) if image.stem.isdecimal() else -1 for image in images}
    found = Found([Entry(image, diagnoses[n], "brain") for image, n in numbers.items() if n in diagnoses])
    if undiagnosed := [image for image, number in numbers.items() if number not in diagnoses]:
        found.notes.append(f"{len(undiagnosed)} images are not in labels.csv and left out ({named(undiagnosed)}).")
    if absent := sorted(set(diagnoses) - set(numbers.values())):
        found.notes.append(f"{len(absent)} lines of labels.csv have no image (numbers {', '.join(map(str, absent))}).")
    return found


def _brain_mr(info: DataSetInfo, inside: tuple[str, ...] = ()) -> DataSet:
    read = partial(read_diagnosis_folders, class_name="brain", normal=("no",), anomalous=("yes",), inside=inside)
    return DataSet(info, read)


DIAGNOSIS_SETS = (
    DataSet(
        DataSetInfo(
            name="headct",
            title="HeadCT",
            domain="head CT, haemorrhage",
            classes=("brain",),
            source="Kaggle, Head CT - hemorrhage (felipekitamura)",
            licence="none found",
            citation="Kitamura, Head CT - hemorrhage, Kaggle 2018",
            paper_counts=(100, 100),
        ),
        read_head_ct,
    ),
    _brain_mr(
        DataSetInfo(
            name="brainmri",
            title="BrainMRI",
            domain="brain MR, tumour",
            classes=("brain",),
            source="Kaggle, Brain MRI Images for Brain Tumor Detection (navoneel)",
            licence="none found",
            citation="Chakrabarty, Brain MRI Images for Brain Tumor Detection, Kaggle 2019",
            paper_counts=(98, 155),
        ),
        inside=("brain_tumor_dataset",),
    ),
    _brain_mr(
        DataSetInfo(
            name="br35h",
            title="Br35H",
            domain="brain MR, tumour",
            classes=("brain",),
            source="Kaggle, Br35H :: Brain Tumor Detection 2020 (ahmedhamada0)",
            licence="none found",
            citation="Hamada, Br35H :: Brain Tumor Detection 2020, Kaggle 2020",
            paper_counts=(1500, 1500),
        )
    ),
    DataSet(
        DataSetInfo(
            name="covid-19",
            title="COVID-19",
            domain="chest radiography",
            classes=("chest",),
            source="Kaggle, COVID-19 Radiography Database (tawsifurrahman), first release; later ones hold more images",
            licence="none found",
            citation="Chowdhury et al., Can AI Help in Screening Viral and COVID-19 Pneumonia?, IEEE Access 2020",
            paper_counts=(1341, 219),
        ),
        partial(
            read_diagnosis_folders,
            class_name="chest",
            normal=("NORMAL",),
            anomalous=("COVID-19", "COVID"),
            inside=("COVID-19 Radiography Database", "COVID-19_Radiography_Dataset"),
        ),
    ),
)
"""HeadCT, BrainMRI, Br35H and COVID-19."""
