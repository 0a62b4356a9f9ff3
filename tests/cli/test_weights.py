# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/weights.md, in its order, with a server on this machine in place of OpenAI's and GitHub's."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from monai_anomalyclip.cli import main
from monai_anomalyclip.cli.weights import RELEASED
from monai_anomalyclip.networks import describe_clip, read_prompts
from monai_anomalyclip.weights import PROMPTS, default_weights_folder

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "weights.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line
]


@pytest.fixture
def tiny_overlay(tiny_config: dict[str, Any], tmp_path: Path) -> Path:
    """What makes the bundle's network one for the tiny CLIP."""
    path = tmp_path / "tiny.json"
    backbone = {"model_name": tiny_config["clip"], "image_size": tiny_config["image_size"]}
    network = {"feature_layers": [12], "dpam_start": 5, "deep_prompt_depth": tiny_config["depth"]}
    path.write_text(
        json.dumps(
            {f"backbone#{key}": value for key, value in backbone.items()}
            | {f"network_def#{key}": value for key, value in network.items()}
        )
    )
    return path


def test_names_of_prompts_are_the_registrys() -> None:
    assert tuple(PROMPTS) == RELEASED


def test_every_command_of_the_page(
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    picture: Path,
    tiny_overlay: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = publish(clip_bytes, prompts_bytes)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    shutil.copytree(picture, "studies")
    done = []
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "monai-anomalyclip"
        asked = len(server.requests)
        if words[0] == "predict":  # the real CLIP's sizes are the bundle's own; the tiny one's have to be told
            words += ["--config", str(tiny_overlay), "--device", "cpu"]
        assert main(words) == 0, line
        assert len(server.requests) == asked or words[1] in ("bundle", "fetch"), line  # others need no network
        done.append(" ".join(words[:2]))
    assert {"weights show", "weights fetch", "weights bundle", "weights verify"} <= set(done)
    assert any(command.startswith("predict") for command in done)
    shown = capsys.readouterr().out
    digests = re.findall(r"must show this SHA-256 of its list: ([0-9a-f]{64})", shown)
    assert set(digests) == set(re.findall(r"SHA-256 of its list: ([0-9a-f]{64})\nCompare", shown))
    results = json.loads((tmp_path / "work" / "results" / "results.json").read_text())
    assert [record["status"] for record in results["inputs"]] == ["ok"]


def test_own_prompts_are_packed_without_asking_for_others(
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    server = publish(clip_bytes, prompts_bytes)
    own = ["--prompts", str(data_dir / "tiny" / "prompt_learner.pth")]
    assert main(["weights", "bundle", "-o", str(tmp_path / "ready"), *own]) == 0
    assert len(server.requests) == 1
    assert "a file of one's own" in (tmp_path / "ready" / "README.md").read_text()
    assert main(["weights", "verify", str(tmp_path / "ready")]) == 0


def test_failures_are_one_sentence_and_leave_nothing(
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "ready"
    bundle = ["weights", "bundle", "-o", str(output)]

    def error() -> str:
        assert main(bundle) == 1
        assert not output.exists()
        shown = capsys.readouterr().err
        assert shown.startswith("error: ")
        assert shown.count("\n") == 1
        return shown

    publish(clip_bytes, prompts_bytes, sha256="0" * 64)
    assert "its SHA-256 is" in error()
    publish(clip_bytes, prompts_bytes, blob="0" * 40)
    assert "its git blob id is" in error()
    server = publish(clip_bytes, prompts_bytes)
    server.answers.clear()
    assert "HTTP 404" in error()
    bundle += ["--prompts", "absent.pth"]
    assert "'absent.pth' is neither mvtec nor visa nor a file" in error()


def test_changed_bundle_is_status_1(
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(clip_bytes, prompts_bytes)
    ready = tmp_path / "ready"
    assert main(["weights", "bundle", "-o", str(ready)]) == 0
    assert main(["weights", "bundle", "-o", str(ready)]) == 1
    assert "exists: name a folder that does not" in capsys.readouterr().err
    (ready / "configs" / "train.json").write_text("{}")
    assert main(["weights", "verify", str(ready)]) == 1
    shown = capsys.readouterr().err
    assert "error: configs/train.json is not as it was when the folder was made." in shown
    assert "error: 1 problems: do not use it" in shown


def test_blob_id_must_look_like_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["weights", "fetch", "--prompts-blob", "main"])
    assert left.value.code == 2
    assert "is not 40 hexadecimal digits" in capsys.readouterr().err


def test_folder_can_be_another(
    publish: Callable[..., Any], clip_bytes: bytes, prompts_bytes: bytes, tmp_path: Path
) -> None:
    publish(clip_bytes, prompts_bytes)
    assert main(["weights", "fetch", "--folder", str(tmp_path / "own"), "--prompts", "visa"]) == 0
    assert (tmp_path / "own" / "anomalyclip_tuned_on_visa.pth").is_file()
    assert not default_weights_folder().exists()


@pytest.fixture
def tiny_model(tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny CLIP behind the name of the real one."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-L-14-336-quickgelu", tiny_config["clip"])


@pytest.fixture
def other_form(data_dir: Path, tmp_path: Path) -> Path:
    """The published tensors in another container, in a folder as the Hub's client makes it."""
    file = tmp_path / "downloaded" / "open_clip_model.safetensors"
    file.parent.mkdir()
    shutil.copy(data_dir / "tiny" / "clip_weights_fp16.safetensors", file)
    return file.parent


def weights_digest(shown: str) -> str:
    return re.findall(r"(?:tensors|their SHA-256 is) ([0-9a-f]{64})", shown)[0]


@pytest.mark.usefixtures("tiny_model")
def test_show_looks_into_files(
    other_form: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "show", str(other_form), str(data_dir / "tiny" / "prompt_learner.pth")]) == 0
    clip, prompts = capsys.readouterr().out.splitlines()
    assert "in the form of open_clip, not recognised as OpenAI's; SHA-256 of its tensors" in clip
    assert "prompts, 12 tokens long" in prompts
    (tmp_path / "ViT-L-14-336px.pt").write_bytes(b"<html>not found</html>")
    for path in (tmp_path / "ViT-L-14-336px.pt", tmp_path / "absent.pt", Path(__file__)):
        assert main(["weights", "show", str(path)]) == 1
    assert "neither prompts nor CLIP" in capsys.readouterr().out


def test_show_says_yes_only_of_the_right_files(
    publish: Callable[..., Any], clip_bytes: bytes, prompts_bytes: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(clip_bytes, prompts_bytes)
    folder = default_weights_folder()
    folder.mkdir()
    (folder / "ViT-tiny.pt").write_bytes(b"<html>")
    (folder / PROMPTS["visa"].name).write_bytes(b"<html>")
    (folder / PROMPTS["mvtec"].name).write_bytes(prompts_bytes)
    assert main(["weights", "show"]) == 0
    shown = capsys.readouterr().out
    states = dict(re.findall(r"^(\S+\.pth?)  +(\S.*)$", shown, re.MULTILINE))
    assert states == {
        "ViT-tiny.pt": "another file has its name: remove it",
        PROMPTS["visa"].name: "another file has its name: remove it",
        PROMPTS["mvtec"].name: "yes, prompts",
    }
    (folder / "ViT-tiny.pt").write_bytes(clip_bytes)
    main(["weights", "show"])
    assert "yes, OpenAI's file" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_model")
def test_bundle_of_another_file_with_the_same_tensors(
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    other_form: Path,
    picture: Path,
    tiny_overlay: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = publish(clip_bytes, prompts_bytes)
    command = ["weights", "bundle", "--clip", str(other_form)]
    # Whose tensors these are is not known, and the tiny CLIP's are not OpenAI's.
    assert main([*command, "-o", str(tmp_path / "a")]) == 1
    assert "does not hold OpenAI's tensors" in capsys.readouterr().err
    main(["weights", "show", str(other_form)])
    digest = weights_digest(capsys.readouterr().out)
    assert main([*command, "-o", str(tmp_path / "b"), "--clip-tensors", "0" * 64]) == 1
    assert f"is {digest} instead of {'0' * 64}" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "c"), "--clip-tensors", digest]) == 0
    assert not [path for path, _ in server.requests if "ViT-tiny" in path]  # CLIP was not fetched
    ready = tmp_path / "c"
    assert (ready / "models" / "clip.safetensors").is_file()
    assert "tensors the same as in OpenAI's file" in (ready / "README.md").read_text()
    capsys.readouterr()
    assert main(["weights", "verify", str(ready)]) == 0
    assert "CLIP is another file than OpenAI's" in capsys.readouterr().out
    run = ["predict", str(picture), "-o", str(tmp_path / "out"), "--bundle", str(ready), "--device", "cpu"]
    assert main([*run, "--config", str(tiny_overlay)]) == 0
    (ready / "models" / "clip.safetensors").write_bytes(b"changed")
    assert main(["weights", "verify", str(ready)]) == 1


@pytest.mark.usefixtures("tiny_model")
def test_compared_with_openais_file_where_it_is(
    publish: Callable[..., Any], clip_bytes: bytes, prompts_bytes: bytes, other_form: Path, tmp_path: Path
) -> None:
    publish(clip_bytes, prompts_bytes)
    assert main(["weights", "fetch"]) == 0
    command = ["weights", "bundle", "--clip", str(other_form), "-o"]
    assert main([*command, str(tmp_path / "a")]) == 0
    weights = load_file(other_form / "open_clip_model.safetensors")
    save_file({**weights, "logit_scale": weights["logit_scale"] + 1}, other_form / "open_clip_model.safetensors")
    assert main([*command, str(tmp_path / "b")]) == 1


@pytest.mark.usefixtures("tiny_model")
def test_what_is_known_of_a_file_of_clip(
    publish: Callable[..., Any],
    clip_bytes: bytes,
    prompts_bytes: bytes,
    other_form: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None; OpenAI's own; and one that is recognisably OpenAI's, where theirs is not here to compare it with."""
    publish(clip_bytes, prompts_bytes)
    command = ["weights", "bundle", "-o"]
    assert main([*command, str(tmp_path / "a"), "--clip", str(tmp_path / "absent.pt")]) == 1
    assert "absent.pt' is no file, nor a folder with one." in capsys.readouterr().err
    (tmp_path / "own.pt").write_bytes(clip_bytes)
    assert main([*command, str(tmp_path / "b"), "--clip", str(tmp_path / "own.pt")]) == 0
    assert "CLIP has the SHA-256 that OpenAI publishes" in verified(tmp_path / "b", capsys)

    def recognised(path: Path, model: str) -> tuple[Any, str]:
        weights, digest = describe_clip(path, model)
        return dataclasses.replace(weights, from_openai=True), digest

    monkeypatch.setattr("monai_anomalyclip.networks.describe_clip", recognised)
    assert main([*command, str(tmp_path / "c"), "--clip", str(other_form)]) == 0
    said = "with OpenAI's start-of-text embedding; the others were not compared"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "c" / "README.md").read_text()
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "d"), "--clip", str(other_form), "--clip-tensors", "0" * 63])
    assert "is not 64 hexadecimal digits" in capsys.readouterr().err
    assert main(["weights", "fetch", "--prompts-blob", "0" * 40]) == 1
    assert "git blob id" in capsys.readouterr().err


def verified(bundle: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["weights", "verify", str(bundle)]) == 0
    return capsys.readouterr().out


def test_predict_with_a_file_of_clip(
    data_dir: Path, other_form: Path, picture: Path, tiny_overlay: Path, tmp_path: Path
) -> None:
    """The shipped bundle by its name, with CLIP and prompts from wherever they lie."""
    run = ["predict", str(picture), "-o", str(tmp_path / "out"), "--bundle", "anomalyclip", "--device", "cpu"]
    run += ["--clip", str(other_form), "--prompts", str(data_dir / "tiny" / "prompt_learner.pth")]
    assert main([*run, "--config", str(tiny_overlay)]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [record["status"] for record in results["inputs"]] == ["ok"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_every_number_is_kept(suffix: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = data_dir / "tiny" / "prompt_learner.pth", tmp_path / f"model{suffix}"
    assert main(["convert-prompts", str(source), str(target)]) == 0
    state = torch.load(source, weights_only=True)["prompt_learner"]
    converted = read_prompts(target)
    assert torch.equal(converted.context_normal, state["ctx_pos"][0])
    assert torch.equal(converted.context_abnormal, state["ctx_neg"][0])
    assert all(torch.equal(deep, state[f"compound_prompts_text.{i}"]) for i, deep in enumerate(converted.deep_prompts))
    count, length, width = state["ctx_pos"][0].shape
    assert f"{count} + {count} prompts of {length} tokens, width {width}" in capsys.readouterr().out


def test_existing_output_is_kept_unless_told(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.pt"
    target.write_text("precious")
    command = ["convert-prompts", str(data_dir / "tiny" / "prompt_learner.pth"), str(target)]
    assert main(command) == 1
    assert "exists" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0
    assert read_prompts(target).deep_prompts


def test_missing_input_is_one_sentence_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert-prompts", str(tmp_path / "absent.pth"), str(tmp_path / "x.pt")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
