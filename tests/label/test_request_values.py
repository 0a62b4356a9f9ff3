# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomalyclip.label.request_values import (
    RESERVED_INFO,
    check_info,
    check_options,
    json_object,
    lies_inside,
    plain_name,
    series_uid,
)

DEVICES = ["cpu", "NVIDIA H200", "cuda"]


@pytest.mark.parametrize(
    "name", ["brain_00", "T1 axial 3", "1.2.840.10008", ".hidden", "Zähne", "東京　頭部", "a" * 240]
)
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert plain_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "/a", "a/", "../a", "a\\b", "..\\a", "C:a", "C:\\a", "\\\\host\\share"),
        *("a\0b", "a\nb", "\x1b[2J", "a\u2028b", "\ud800", None, 5, ["a"], b"a"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="The tag must be a plain name"):
        plain_name(name, "The tag")


def test_length_of_a_name_is_that_of_its_bytes() -> None:
    assert plain_name("ä" * 120) == "ä" * 120
    with pytest.raises(ValueError, match="longer than 240 bytes"):
        plain_name("ä" * 121)


def test_uids_of_series() -> None:
    assert series_uid("1.2.840.10008.1") == "1.2.840.10008.1"
    for wrong in ("", "1..2", "1.2.", "../1", "1.2\n", "1." * 32 + "12", "\u0661.\u0662", None):
        with pytest.raises(ValueError, match="must be the UID of a series"):
            series_uid(wrong)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "studies" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "link").symlink_to(tmp_path / "studies")
    assert lies_inside(tmp_path / "studies" / "new.png", tmp_path / "studies")
    assert lies_inside(tmp_path / "studies" / "new.png", tmp_path / "link")
    assert not lies_inside(tmp_path / "studies" / "out" / "new.png", tmp_path / "studies")
    assert not lies_inside(tmp_path / "studies" / ".." / "new.png", tmp_path / "studies")
    assert not lies_inside(tmp_path / "studies2" / "new.png", tmp_path / "studies")


def test_json_objects() -> None:
    assert json_object('{"a": [1, {"b": null}], "c": "ä"}') == {"a": [1, {"b": None}], "c": "ä"}
    assert json_object(b"{}") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no valid JSON"),
        ("", "no valid JSON"),
        (b"\xff\xfe\xfa", "no valid JSON"),
        ("[1]", "must be a JSON object"),
        ('"x"', "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"a": NaN}', "no valid JSON"),
        ('{"a": -Infinity}', "no valid JSON"),
        ('{"a": 1e999}', "no valid JSON"),  # Python reads it as infinity
        ('{"a": "\\ud800"}', "no valid JSON"),
        ('{"\\udfff": 1}', "no valid JSON"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "no valid JSON"),
        ('{"a": ' * 17 + "1" + "}" * 17, "nested more than 16 deep"),
        ('{"a": ' + "[" * 16 + "]" * 16 + "}", "nested more than 16 deep"),
        (json.dumps({"a": "x" * 65_536}), "at most 65536 are taken"),
        (json.dumps({"a": "ä" * 11_000}, ensure_ascii=False), "at most 65536 are taken"),  # six characters each
        ('{"a": ' + "9" * 5000 + "}", "no valid JSON"),
    ],
)
def test_json_that_could_not_be_stored_or_sent_on_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        json_object(text, "params")


def test_depth_is_counted_in_both_kinds_of_nesting() -> None:
    assert json_object('{"a": ' * 16 + "1" + "}" * 16)
    assert json_object('{"a": ' + "[" * 15 + "]" * 15 + "}")


def test_info_of_the_server_is_its_own() -> None:
    check_info({"comment": "x", "client_id": "y"})
    for key in (*RESERVED_INFO, "anomaly_score", "anomaly_descriptor"):
        with pytest.raises(ValueError, match=f"'{key}'"):
            check_info({key: 1})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threshold": 0.5, "preset": ["auto", "percentile"], "device": ["cpu"], "min_poly_area": "10"},
        {"threshold": "calibrated"},
        {"threshold": ["calibrated"]},
        {"threshold": "0.3"},
        {"device": "cuda"},
        {"device": "NVIDIA H200"},
        {"device": None},
        {"max_epochs": 10, "learning_rate": 0.001, "train_batch_size": [8, 16]},
        {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False},
        {"save_label": "true", "label_tag": "anomaly_v1", "multi_gpu": False, "gpus": "0,1", "images": "unlabeled"},
        {"images": ["a", "b c"], "gpus": "all", "client_id": "user-xyz", "whatever": {"a": 1}},
        {"label_info": [{"name": "anomaly", "idx": 1, "color": [255, 0, 0], "segmentAttribute": {"labelID": 1}}]},
    ],
)
def test_what_clients_send_is_taken(options: dict[str, Any]) -> None:
    check_options(options, DEVICES)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": [1]}, r"threshold must be one number in 0..1 or 'calibrated', got \[1\]"),
        ({"threshold": 2}, "threshold must be one number"),
        ({"threshold": True}, "threshold must be one number"),
        ({"threshold": None}, "threshold must be one number"),
        ({"threshold": "nan"}, "threshold must be one number"),
        ({"threshold": "high"}, "threshold must be one number"),
        ({"threshold": {"a": 1}}, "threshold must be one number"),
        ({"threshold": ["calibrated", 0.5]}, "threshold must be one number"),
        ({"min_poly_area": []}, "min_poly_area must be one number"),
        ({"min_poly_area": -1}, "min_poly_area must be one number"),
        ({"max_epochs": 0}, "max_epochs must be one whole number in 1..10000"),
        ({"max_epochs": 1.5}, "max_epochs must be one whole number"),
        ({"max_epochs": "many"}, "max_epochs must be one whole number"),
        ({"max_epochs": 10**400}, "max_epochs must be one whole number"),
        ({"max_samples": -1}, "max_samples must be one whole number"),
        ({"learning_rate": float("inf")}, "learning_rate must be one number"),
        ({"device": "meta"}, "There is no device 'meta' here, but: cpu, NVIDIA H200, cuda"),
        ({"device": "cuda:9"}, "There is no device"),
        ({"device": 5}, "device must be one of the names"),
        ({"device": []}, "device must be one of the names"),
        ({"preset": {"a": 1}}, "preset must be one of the names"),
        ({"preset": None}, "preset must be one of the names"),
        ({"save_label": "perhaps"}, "save_label must be true or false"),
        ({"result_extension": "/../../x.nii.gz"}, "result_extension must be one of .nii"),
        ({"result_extension": [".nii"]}, "result_extension must be one of .nii"),
        ({"result_dtype": "object"}, "result_dtype must be one of uint8"),
        ({"label_tag": "../../../x"}, "label_tag must be a plain name"),
        ({"gpus": "0\0"}, "gpus must be"),
        ({"gpus": "0;rm"}, "gpus must be"),
        ({"images": ["/etc/passwd"]}, "Each of images must be a plain name"),
        ({"images": "some"}, "images must be a list"),
        ({"label_info": "x"}, "label_info must be a list of objects"),
        ({"label_info": [1]}, "label_info must be a list of objects"),
        ({"label_info": [{"name": 1}]}, "name of label_info must be text"),
        ({"label_info": [{"color": "red"}]}, "color of label_info must be"),
        ({"label_info": [{"segmentAttribute": 1}]}, "segmentAttribute of label_info must be"),
        ({"image": "/etc/passwd"}, "'image' is no option"),
        ({"session": {}}, "'session' is no option"),
        ({"bundle_path": "/somewhere"}, "'bundle_path' is no option"),
        ({"local_rank": 1}, "'local_rank' is no option"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_options(options, DEVICES)


def test_what_the_server_sets_itself_is_its_own() -> None:
    check_options({"image": "a", "session": {}}, DEVICES, own=("image", "session"))


def test_names_of_gpus_mean_the_cpu_where_there_is_none() -> None:
    check_options({"device": "cuda:1"}, ["cpu"])
    with pytest.raises(ValueError, match="There is no device"):
        check_options({"device": "cuda:x"}, ["cpu"])


def test_long_values_are_not_repeated() -> None:
    with pytest.raises(ValueError, match="threshold") as failed:
        check_options({"threshold": "x" * 10_000}, DEVICES)
    assert len(str(failed.value)) < 200
