# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The published layouts of the data sets, as trees of tiny pictures with what must be found in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

# One line per file or image: section | image_label | class | image | mask. "extra" lines are files to be ignored.
LAYOUTS = {
    "mvtec": """
        training | 0 | bottle | bottle/train/good/000.png
        testing | 0 | bottle | bottle/test/good/000.png
        testing | 1 | bottle | bottle/test/broken_large/000.png | bottle/ground_truth/broken_large/000_mask.png
        testing | 1 | bottle | bottle/test/contamination/000.png | bottle/ground_truth/contamination/000_mask.png
        training | 0 | metal_nut | metal_nut/train/good/000.PNG
        testing | 1 | metal_nut | metal_nut/test/bent/010.PNG | metal_nut/ground_truth/bent/010_mask.png
        extra | bottle/license.txt
        extra | bottle/test/good/.DS_Store
        extra | bottle/test/broken_large/._000.png
        extra | bottle/test/good/Thumbs.db
        extra | readme.txt
    """,
    "mpdd": """
        training | 0 | tubes | tubes/train/good/000.png
        testing | 0 | tubes | tubes/test/good/000.png
        testing | 1 | tubes | tubes/test/anomalous/000.png | tubes/ground_truth/anomalous/000_mask.png
    """,
    "btad": """
        training | 0 | 01 | 01/train/ok/0000.bmp
        testing | 0 | 01 | 01/test/ok/0020.bmp
        testing | 1 | 01 | 01/test/ko/0000.bmp | 01/ground_truth/ko/0000.png
        testing | 1 | 03 | 03/test/ko/0001.bmp | 03/ground_truth/ko/0001.bmp
    """,
    "dtd-synthetic": """
        training | 0 | Woven_001 | Woven_001/train/good/000.png
        testing | 1 | Woven_001 | Woven_001/test/bad/001.png | Woven_001/ground_truth/bad/001_mask.png
    """,
    "visa": """
        training | 0 | candle | candle/Data/Images/Normal/0000.JPG
        testing | 0 | candle | candle/Data/Images/Normal/0001.JPG
        testing | 1 | candle | candle/Data/Images/Anomaly/000.JPG | candle/Data/Masks/Anomaly/000.png
        testing | 1 | pcb1 | pcb1/Data/Images/Anomaly/000.JPG | pcb1/Data/Masks/Anomaly/000.png
        extra | candle/image_anno.csv
    """,
    "dagm": """
        training | 0 | Class1 | Class1/Train/0001.PNG
        training | 1 | Class1 | Class1/Train/0002.PNG | Class1/Train/Label/0002_label.PNG
        testing | 0 | Class10 | Class10/Test/0001.PNG
        testing | 1 | Class10 | Class10/Test/0576.PNG | Class10/Test/Label/0576_label.PNG
    """,
    "isic": """
        training | 1 | skin | ISBI2016_ISIC_Part1_Training_Data/ISIC_0000000.jpg | \
ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_0000000_Segmentation.png
        testing | 1 | skin | ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg | \
ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png
        extra | ISBI2016_ISIC_Part1_Test_Data/ATTRIBUTION.txt
    """,
    "cvc-clinicdb": """
        testing | 1 | colon | Original/1.tif | Ground Truth/1.tif
        testing | 1 | colon | Original/10.tif | Ground Truth/10.tif
        testing | 1 | colon | Original/2.tif | Ground Truth/2.tif
    """,
    "cvc-colondb": """
        testing | 1 | colon | images/1.png | masks/1.png
        testing | 1 | colon | images/10.png | masks/10.png
    """,
    "kvasir": """
        testing | 1 | colon | images/cju0qkwl35piu.jpg | masks/cju0qkwl35piu.jpg
        extra | kavsir_bboxes.json
    """,
    "endo": """
        testing | 1 | colon | images/a1b2.jpg | masks/a1b2.jpg
    """,
    "tn3k": """
        training | 1 | thyroid | trainval-image/0000.jpg | trainval-mask/0000.jpg
        testing | 1 | thyroid | test-image/0000.jpg | test-mask/0000.jpg
        extra | label4test.csv
    """,
    "headct": """
        testing | 1 | brain | head_ct/head_ct/000.png
        testing | 0 | brain | head_ct/head_ct/101.png
    """,
    "brainmri": """
        testing | 0 | brain | no/1 no.jpeg
        testing | 0 | brain | no/N15.jpg
        testing | 1 | brain | yes/Y1.JPG
        extra | brain_tumor_dataset/no/1 no.jpeg
        extra | brain_tumor_dataset/yes/Y1.JPG
    """,
    "br35h": """
        testing | 0 | brain | no/no0.jpg
        testing | 1 | brain | yes/y0.jpg
        extra | pred/pred0.jpg
    """,
    "covid-19": """
        testing | 0 | chest | NORMAL/NORMAL (1).png
        testing | 1 | chest | COVID-19/COVID-19 (1).png
        extra | Viral Pneumonia/Viral Pneumonia (1).png
        extra | NORMAL.metadata.xlsx
    """,
    "colondb-endo": """
        testing | 1 | colon | CVC-ColonDB/images/1.png | CVC-ColonDB/masks/1.png
        testing | 0 | colon | Endo classification/normal/e1.jpg
        extra | Endo classification/polyps/e2.jpg
    """,
    "folder": """
        testing | 0 | root | good/a.png
        testing | 1 | root | bad/b.png | masks/b_mask.png
    """,
}

Expected = dict[str, set[tuple[str, str | None, int, str]]]


def plant(draw: Callable[..., None], root: Path, name: str) -> Expected:
    """Make the tree of a data set and tell what must be found in it."""
    expected: Expected = {"training": set(), "testing": set()}
    rows = []
    for line in LAYOUTS[name].replace("\\\n", "").strip().splitlines():
        first, *rest = (part.strip() for part in line.split(" | "))
        if first == "extra":
            path = root / rest[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".jpg", ".png", ".jpeg") and path.name[0] != ".":
                draw(path)
            else:
                path.write_bytes(b"not a picture")
            continue
        label, class_name, image, *masks = rest
        draw(root / image)
        for mask in masks:
            draw(root / mask, mask=True)
        expected[first].add((image, masks[0] if masks else None, int(label), class_name))
        rows.append((first, label, class_name, image, masks[0] if masks else ""))
    if name == "visa":
        lines = ["object,split,label,image,mask"]
        for section, label, class_name, image, mask in rows:
            split, word = ("train" if section == "training" else "test"), ("normal", "anomaly")[int(label)]
            lines.append(f"{class_name},{split},{word},{image},{mask}")
        (root / "split_csv").mkdir()
        (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    if name == "headct":
        (root / "labels.csv").write_text("id, hemorrhage\n0,1\n101,0\n")
    return expected


@pytest.fixture
def planted(picture: Callable[..., None]) -> Callable[[Path, str], Expected]:
    """Makes the tree of a data set below a folder and tells what must be found in it."""
    return partial(plant, picture)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument ``layout`` runs on every published layout."""
    if "layout" in metafunc.fixturenames:
        metafunc.parametrize("layout", LAYOUTS)
