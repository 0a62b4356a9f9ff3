# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from monai_anomalyclip.transforms.intensity_presets import (
    PRESET_NAMES,
    PRESETS,
    Window,
    check_preset,
    choose_preset,
    window_limits,
)


def test_the_examples_of_the_standard() -> None:
    # PS3.3 C.11.2.1.2.1 prints the limits for these widths and centres.
    assert window_limits(4096, 2048) == (0, 4095)
    assert window_limits(1, 2048) == (2047.5, 2047.5)
    assert window_limits(100, 0) == (-50, 49)
    assert window_limits(1, 0) == (-0.5, -0.5)
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        window_limits(0.5, 40)


@pytest.mark.parametrize(
    ("body_part", "descriptions", "preset"),
    [
        ("HEAD", (), "ct-brain"),
        ("", ("Routine Head without contrast",), "ct-brain"),
        ("LUNG", (), "ct-lung"),
        ("CHEST", ("LUNG 1.0 B70f",), "ct-lung"),
        ("CHEST", ("Mediastinum",), "ct-mediastinum"),
        ("ABDOMEN", (), "ct-soft"),
        ("ABDOMEN", ("Liver, portal-venous",), "ct-liver"),
        ("ABDOMEN", ("Pelvis",), "ct-soft"),
        ("", ("BONE_RECON",), "ct-bone"),
        ("", ("subdural",), "ct-subdural"),
    ],
)
def test_one_region_decides(body_part: str, descriptions: tuple[str, ...], preset: str) -> None:
    choice = choose_preset("CT", body_part, descriptions)
    assert choice.preset == preset
    assert (choice.width, choice.level) == PRESETS[preset]
    assert choice.warnings == ()


@pytest.mark.parametrize(
    ("body_part", "descriptions"),
    [
        ("", ()),
        ("KNEE", ("CANARY^ZEBRA",)),
        ("CHEST", ()),
        ("CHEST", ("ABDOMEN",)),
        ("HEAD", ("NECK",)),
        ("HEAD", ("CHEST",)),
        ("HEAD", ("BONE",)),
        ("HEAD", ("Knochen axial",)),
        ("HEAD", ("DentalScan",)),
        ("HEAD", ("CT SINUS",)),
        ("HEAD", ("CT Felsenbein",)),
        ("HEAD", ("CT ANGIO HEAD",)),
        ("", ("CTA",)),
        ("HEADNECK", ("HEADHUNTER", "OVERHEAD")),
    ],
)
def test_no_region_or_several_warn(body_part: str, descriptions: tuple[str, ...]) -> None:
    choice = choose_preset("CT", body_part, descriptions)
    assert choice.preset == "ct-soft"
    assert len(choice.warnings) == 1
    text = json.dumps(choice.to_dict())
    assert not any(word in text for word in ("CANARY", "KNEE", "HUNTER"))


@pytest.mark.parametrize(
    ("modality", "has_voi", "preset", "warned"),
    [
        ("MR", True, "percentile", False),
        ("", False, "percentile", False),
        ("PT", False, "percentile", True),
        ("OPT", True, "percentile", False),
        ("DX", True, "dicom", False),
        ("CR", True, "dicom", False),
        ("MG", True, "dicom", False),
        ("MG", False, "percentile", False),
    ],
)
def test_other_modalities(modality: str, has_voi: bool, preset: str, warned: bool) -> None:
    choice = choose_preset(modality, "HEAD", has_voi=has_voi)
    assert choice.preset == preset
    assert choice.width is None
    assert bool(choice.warnings) == warned


def test_what_is_requested_wins() -> None:
    assert choose_preset("CT", "HEAD", requested="ct-bone").preset == "ct-bone"
    assert choose_preset("CT", "HEAD", requested="ct-bone").warnings == ()
    assert choose_preset("", requested="ct-bone").warnings == ()
    assert "another modality" in choose_preset("MR", requested="ct-bone").warnings[0]
    assert "Hounsfield" in choose_preset("CT", requested="ct-bone", hounsfield=False).warnings[0]
    assert choose_preset("CT", "HEAD", requested="percentile").preset == "percentile"
    assert choose_preset("CT", "HEAD", requested="dicom", has_voi=True).preset == "dicom"
    with pytest.raises(ValueError, match="needs a usable window"):
        choose_preset("MR", requested="dicom")


def test_ct_without_hounsfield_units_gets_no_window() -> None:
    choice = choose_preset("CT", "HEAD", hounsfield=False)
    assert choice.preset == "percentile"
    assert choice.warnings


def test_pictures_are_left_alone() -> None:
    choice = choose_preset("US", picture=True)
    assert (choice.preset, choice.warnings) == ("none", ())
    assert "ct-brain" in choose_preset("US", requested="ct-brain", picture=True).warnings[0]


def test_unknown_presets_are_refused_with_all_names() -> None:
    for call in (check_preset, lambda name: choose_preset("CT", requested=name)):
        with pytest.raises(ValueError, match="'brain'") as caught:
            call("brain")
        assert all(name in str(caught.value) for name in PRESET_NAMES)


def test_choice_as_json() -> None:
    choice = choose_preset("CT", "CHEST").with_limits(-160, 239, "Odd.")
    record = json.loads(choice.to_json())
    assert record == choice.to_dict()
    assert (record["low"], record["high"], record["width"], record["level"]) == (-160, 239, 400, 40)
    assert len(record["warnings"]) == 2
    assert record["warnings"][1] == "Odd."


BONE, BRAIN, SOFT, LUNG = Window(2000, 400), Window(80, 40), Window(400, 40), Window(1500, -600)


@pytest.mark.parametrize(
    ("body_part", "description", "kernel", "own", "preset", "warned"),
    [
        ("HEAD", "DentalCT 0.75 H60s", "H60s", [BONE, Window(4000, 700)], "dicom", True),
        ("HEAD", "", "", [BONE], "dicom", True),
        ("HEAD", "", "H60s", [], "ct-soft", True),
        ("HEAD", "", "H30s", [BRAIN], "ct-brain", False),
        ("HEAD", "", "BONEPLUS", [BONE], "dicom", True),
        ("HEAD", "", "", [BONE, BRAIN], "ct-brain", False),
        ("HEAD", "", "", [], "ct-brain", False),
        ("CHEST", "", "B70f", [], "ct-lung", False),
        ("CHEST", "", "LUNG", [LUNG], "ct-lung", False),
        ("CHEST", "LUNG 1.0", "FC51", [SOFT], "ct-lung", True),  # two against one
        ("LUNG", "", "", [SOFT], "dicom", True),
        ("ABDOMEN", "", "B30f", [Window(350, 50)], "ct-soft", False),
        ("", "", "STANDARD", [BRAIN], "dicom", True),
        ("", "", "", [SOFT], "ct-soft", True),
    ],
)
def test_all_evidence_for_a_ct_window_counts(
    body_part: str, description: str, kernel: str, own: list[Window], preset: str, warned: bool
) -> None:
    choice = choose_preset(
        "CT", body_part, [description], has_voi=bool(own), kernels=[kernel] if kernel else [], own_windows=own
    )
    assert (choice.preset, bool(choice.warnings)) == (preset, warned)


def test_a_contradicting_window_that_cannot_be_used_makes_a_warning() -> None:
    choice = choose_preset("CT", "HEAD", has_voi=False, own_windows=[BONE])
    assert choice.preset == "ct-brain"
    assert "differ from ct-brain" in choice.warnings[0]
