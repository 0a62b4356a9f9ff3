# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_anomalyclip.data import InputCatalogue, ReadOptions
from monai_anomalyclip.data.errors import UnreadableInputError
from monai_anomalyclip.data.parts import Part
from monai_anomalyclip.data.work_list import WorkUnit, read_work_list, sources_of_units, units_of, write_work_list


@pytest.fixture
def folder(tmp_path: Path, phantoms: ModuleType, picture: Callable[..., None]) -> Path:
    """One of each kind, with series of several stacks, and a damaged slice beside one."""
    root = tmp_path / "studies"
    for index in range(6):
        picture(root / "pictures" / f"{index}.png")
    first, second = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (1, 2))
    first.save(root / "pages.tif", save_all=True, append_images=[second])
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 3), np.float32), np.eye(4)), root / "volume.nii.gz")
    phantoms.make_series(root / "ct", count=3, size=(16, 20))
    phantoms.make_series(root / "mr", count=3, size=(16, 20), modality="MR", echoes=(20, 80), seed="mr")
    phantoms.make_series(root / "dx", count=2, size=(16, 20), modality="DX", positioned=False, seed="dx")
    phantoms.make_series(root / "loc", count=1, size=(16, 20), localizer=True, seed="loc")
    phantoms.make_cine(root / "us", count=3, size=(16, 20))
    slices = sorted((root / "ct").rglob("*"))
    whole = next(path for path in slices if path.is_file())
    (whole.parent / "cut.dcm").write_bytes(whole.read_bytes()[:300])
    return root


def listed(folder: Path, path: Path, part: Part | None = None) -> InputCatalogue:
    return InputCatalogue([], work_list=path, part=part)


def test_a_list_gives_what_the_scan_gave(folder: Path, tmp_path: Path) -> None:
    scanned = InputCatalogue(folder)
    path = tmp_path / "work.jsonl"
    header = write_work_list(path, units_of(scanned.sources, scanned.skipped), scanned.left_out())
    assert path.stat().st_mode & 0o777 == 0o600
    assert header.inputs == len(scanned.sources) > header.units
    read = listed(folder, path)
    assert set(read.sources) == set(scanned.sources)
    assert read.left_out() == scanned.left_out()
    for name, source in scanned.sources.items():
        other = read.sources[name]
        assert (other.key, other.group, other.kind) == (source.key, source.group, source.kind)
        assert other.state() == source.state()
        first, second = source.load(), other.load()
        np.testing.assert_array_equal(first, second)
        assert first.meta.get("notes") == second.meta.get("notes")
    (ct,) = (source for name, source in read.sources.items() if name.startswith("ct_"))
    assert any("Damaged files" in note for note in ct.series.notes)  # type: ignore[attr-defined]


@pytest.mark.parametrize("by_list", [False, True])
def test_parts_share_all_inputs(folder: Path, tmp_path: Path, by_list: bool) -> None:
    whole = InputCatalogue(folder)
    path = tmp_path / "work.jsonl"
    write_work_list(path, units_of(whole.sources, whole.skipped), whole.left_out())
    for count in (1, 2, 5):
        found: list[str] = []
        groups: list[set[str]] = []
        for number in range(1, count + 1):
            part = Part(number, count)
            catalogue = listed(folder, path, part) if by_list else InputCatalogue(folder, part=str(part))
            found += catalogue.sources
            groups.append({source.group for source in catalogue.sources.values()})
            assert catalogue.left_out() == whole.left_out()
        assert sorted(found) == sorted(whole.sources)
        assert sum(map(len, groups)) == len(set().union(*groups))  # a series is read by one part alone


def test_inputs_that_changed_since_fail_alone(folder: Path, tmp_path: Path) -> None:
    scanned = InputCatalogue(folder)
    units = units_of(scanned.sources, scanned.skipped)
    for path in (folder / "mr").rglob("*"):
        if path.is_file():
            header = pydicom.dcmread(path)
            header.SeriesInstanceUID = "1.2.3"
            header.save_as(path)
    (folder / "volume.nii.gz").unlink()
    sources = sources_of_units(units, ReadOptions())
    lost = [name for name in sources if name.startswith("mr_")]
    assert len(lost) == 2
    for name in lost:
        with pytest.raises(UnreadableInputError, match="no longer what the work list says"):
            sources[name].load()
    (volume,) = (name for name in sources if name.startswith("volume_"))
    with pytest.raises((UnreadableInputError, OSError)):
        sources[volume].load()
    assert all(sources[name].load() is not None for name in sources if name.startswith(("frame_", "ct_")))


def test_a_volume_with_its_voxels_elsewhere_that_is_gone(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((3, 5, 4), np.float32))
    sitk.WriteImage(image, str(tmp_path / "volume.mhd"))
    units = units_of(InputCatalogue(tmp_path).sources, [])
    (tmp_path / "volume.mhd").unlink()
    (source,) = sources_of_units(units, ReadOptions()).values()
    with pytest.raises(UnreadableInputError, match="no longer what the work list says"):
        source.load()


def test_files_of_one_name_in_two_folders_of_one_name(tmp_path: Path, picture: Callable[..., None]) -> None:
    for side in ("a", "b"):
        picture(tmp_path / side / "scan" / f"{side}.png")
        (tmp_path / side / "scan" / f"{side}.png").rename(tmp_path / side / "scan" / "1.png")
    scanned = InputCatalogue([tmp_path / "a" / "scan", tmp_path / "b" / "scan"])
    assert len(scanned.sources) == 2
    sources = sources_of_units(units_of(scanned.sources), ReadOptions())
    assert {name: source.paths for name, source in sources.items()} == {
        name: source.paths for name, source in scanned.sources.items()
    }


def test_lists_that_are_none(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    for content in ("", "{}", "[]", "name,path\n", '{"format": "other"}\n'):
        path.write_text(content)
        with pytest.raises(ValueError, match="is no work list of this program"):
            read_work_list(path)
        with pytest.raises(ValueError, match="is no work list of this program"):
            write_work_list(path, [], {})  # another file is not replaced
        assert path.read_text() == content
    path.unlink()
    scanned = InputCatalogue(folder)
    write_work_list(path, units_of(scanned.sources), {})
    write_work_list(path, units_of(scanned.sources), {})  # an older list is
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=f"has {len(lines) - 2} of its {len(lines) - 1} lines"):
        list(read_work_list(path)[1])
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    with pytest.raises(ValueError, match="cannot be read: make the list again"):
        list(read_work_list(path)[1])
    for changed in ({"origin": "shell"}, {"group": "../x"}, {"paths": []}, {"more": 1}):
        with pytest.raises(ValueError, match="cannot be read"):
            WorkUnit.from_json(json.dumps({**json.loads(lines[1]), **changed}))


def test_a_list_is_chosen_from_when_it_is_made(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    write_work_list(path, [], {})
    with pytest.raises(ValueError, match="choose among them when it is made"):
        InputCatalogue(folder, work_list=path)
    with pytest.raises(ValueError, match="choose among them when it is made"):
        InputCatalogue([], work_list=path, exclude_patterns="*x*")
    assert InputCatalogue([], work_list=path).sources == {}
