# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.data import InputCatalogue
from monai_anomalyclip.data.links import LINK_COLUMNS, check_links, write_links


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_names_lead_to_paths_studies_and_series(phantoms: ModuleType, tmp_path: Path) -> None:
    paths = phantoms.make_series(tmp_path / "in" / "ct", count=3)
    first = pydicom.dcmread(paths[0])
    for path in paths:
        header = pydicom.dcmread(path)
        header.SeriesDescription, header.SeriesNumber = "=HYPERLINK(0)", 7
        header.save_as(path)
    pages = [Image.fromarray(np.full((8, 9), value, np.uint8)) for value in (10, 20)]
    pages[0].save(tmp_path / "in" / "two.tif", save_all=True, append_images=pages[1:])
    catalogue = InputCatalogue(tmp_path / "in")
    table = tmp_path / "links.csv"
    write_links(table, catalogue)
    rows = {row["name"]: row for row in rows_of(table)}
    assert list(rows) == list(catalogue.sources)
    (series,) = (row for row in rows.values() if row["series_instance_uid"])
    assert series["name"].startswith("ct_")
    assert (series["study_instance_uid"], series["series_instance_uid"]) == (
        str(first.StudyInstanceUID), str(first.SeriesInstanceUID),
    )  # fmt: skip
    assert (series["files"], series["folder"]) == ("3", str((tmp_path / "in" / "ct").resolve()))
    assert Path(series["path"]) in [Path(path).resolve() for path in paths]
    assert (series["series_number"], series["series_description"]) == ("7", "'=HYPERLINK(0)")
    frames = [row for row in rows.values() if not row["series_instance_uid"]]
    assert sorted((Path(row["path"]).name, row["page"]) for row in frames) == [("two.tif", ""), ("two.tif", "2")]
    assert table.stat().st_mode & 0o777 == 0o600
    write_links(table, catalogue)  # it is replaced
    assert len(rows_of(table)) == 3


def test_places_that_are_refused(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for place in (results / "links.csv", results / "deep" / "links.csv"):
        with pytest.raises(ValueError, match="would lie in a folder of results"):
            check_links(place, results)
    check_links(results / "links.csv", tmp_path / "other")  # no results are there
    results.mkdir()
    (results / "NOTICE.txt").write_text(RESEARCH_USE_ONLY)
    with pytest.raises(ValueError, match="would lie in a folder of results"):
        check_links(results / "sub" / "links.csv")
    with pytest.raises(ValueError, match="are a folder"):
        check_links(tmp_path)
    (tmp_path / "notes.csv").write_text("name,path\n")
    with pytest.raises(ValueError, match="is not a table of links of this program"):
        check_links(tmp_path / "notes.csv")
    (tmp_path / "old.csv").write_text(",".join(LINK_COLUMNS) + "\n")
    check_links(tmp_path / "old.csv", results)
