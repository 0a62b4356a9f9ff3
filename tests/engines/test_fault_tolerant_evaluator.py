# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import errno
import logging
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from torch import Tensor, nn

from monai_anomalyclip.data import FaultTolerantDataset
from monai_anomalyclip.engines import FaultTolerantEvaluator, InputsFailedError
from monai_anomalyclip.engines.fault_tolerant_evaluator import DeviceLostError, StoppedError, stopped_by_signals


def load(item: dict[str, Any]) -> dict[str, Any]:
    """An image of 2 x 2 pixels, all of the number that the file's name begins with."""
    if "unreadable" in item["image"]:
        raise OSError(f"cannot open {item['image']}")
    return {**item, "image": torch.full((1, 2, 2), float(Path(item["image"]).name[0]))}


class Doubling(nn.Module):
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        if image.mean() == 3:
            raise RuntimeError("no memory left")
        return {"anomaly_map": 2 * image, "anomaly_score": image.flatten(1).amax(dim=1)}


def finish(item: dict[str, Any]) -> dict[str, Any]:
    if item["image"].mean() == 5:
        raise ValueError("odd geometry")
    return {**item, "finished": True}


class Recorder:
    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.events: list[str] = []

    def attach(self, engine: Engine) -> None:
        for event in (Events.STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED, Events.TERMINATE):
            engine.add_event_handler(event, lambda _, event=event: self.events.append(event.value))
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: self.items.extend(engine.state.output))


def evaluator(names: Sequence[str], recorder: Recorder | None = None) -> FaultTolerantEvaluator:
    return evaluator_of([{"image": f"/archive/Doe John/{name}", "name": name} for name in names], recorder)


def evaluator_of(data: Sequence[dict[str, Any]], recorder: Recorder | None = None) -> FaultTolerantEvaluator:
    return FaultTolerantEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(FaultTolerantDataset(data, load), batch_size=1, collate_fn=list),
        network=Doubling(),
        postprocessing=finish,
        val_handlers=None if recorder is None else [recorder],
    )


class Prompted(Doubling):
    """Notes when its prompts are encoded, and what is computed with them."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    @contextlib.contextmanager
    def fixed_prompts(self) -> Iterator[None]:
        self.events.append("fixed")
        yield
        self.events.append("free")

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.events.append("image")
        return super().forward(image)


def test_prompts_are_fixed_for_a_whole_run() -> None:
    engine = evaluator(["1", "2", "4"])
    engine.network = network = Prompted()
    engine.run()
    assert network.events == ["fixed", "image", "image", "image", "free"]


def test_reading_network_and_postprocessing_may_fail_in_the_middle() -> None:
    recorder = Recorder()
    names = ["1", "2 unreadable", "3", "4", "5", "6"]
    engine = evaluator(names, recorder)
    with pytest.raises(InputsFailedError):
        engine.run()
    assert [item["name"] for item in recorder.items] == names
    assert engine.failures == {
        "2 unreadable": "OSError: cannot open 2 unreadable",
        "3": "RuntimeError: no memory left",
        "5": "ValueError: odd geometry",
    }
    for item in recorder.items:
        name = item["name"]
        if name in engine.failures:
            assert item == {"name": name, "error": engine.failures[name]}
        else:
            value = float(name)
            assert item["finished"] is True
            assert item["score_s"] > 0
            torch.testing.assert_close(torch.as_tensor(item["image"]), torch.full((1, 2, 2), value))
            torch.testing.assert_close(item["pred"]["anomaly_map"], torch.full((1, 2, 2), 2 * value))
            assert float(item["pred"]["anomaly_score"]) == value
    assert recorder.events == ["started", "epoch_completed", "completed"]


def test_error_counts_and_names_the_failures_but_no_folder() -> None:
    with pytest.raises(InputsFailedError) as caught:
        evaluator(["1", "2 unreadable", "3"]).run()
    assert str(caught.value) == (
        "2 of 3 inputs failed: 2 unreadable (OSError: cannot open 2 unreadable); 3 (RuntimeError: no memory left)"
    )


def test_what_may_do_well_another_time_is_told_apart() -> None:
    """A drive that ails while an input is read, and memory that is short while it is scored; not a damaged file."""

    def ailing(item: dict[str, Any]) -> dict[str, Any]:
        if item["name"] == "2":
            raise OSError(errno.EIO, "Input/output error")
        return load(item)

    class Short(Doubling):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            if image.mean() == 4:
                raise MemoryError
            return super().forward(image)

    engine = evaluator(["1", "2", "3", "4", "5 unreadable"])
    engine.data_loader.dataset.transform = ailing
    engine.network = Short()
    with pytest.raises(InputsFailedError) as caught:
        engine.run()
    assert set(engine.failures) == {"2", "3", "4", "5 unreadable"}
    assert caught.value.passing == engine.passing == {"2", "4"}
    engine.data_loader.dataset.transform, engine.network = load, nn.Identity()
    with pytest.raises(InputsFailedError) as caught:
        engine.run()
    assert caught.value.passing == set()  # of this run alone


def test_error_lists_five() -> None:
    with pytest.raises(InputsFailedError) as caught:
        evaluator([f"{index} unreadable" for index in range(7)]).run()
    assert re.match(r"7 of 7 inputs failed: 0 unreadable \(", str(caught.value))
    assert "4 unreadable" in str(caught.value)
    assert "5 unreadable" not in str(caught.value)
    assert str(caught.value).endswith("; and 2 more")


def test_all_well() -> None:
    recorder = Recorder()
    engine = evaluator(["1", "2"], recorder)
    engine.run()
    assert engine.failures == {}
    assert len(recorder.items) == 2


def test_failure_that_a_handler_notes_counts() -> None:
    class Writer:
        def attach(self, engine: FaultTolerantEvaluator) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), self.fail)

        def fail(self, engine: FaultTolerantEvaluator) -> None:
            engine.failures[engine.state.output[0]["name"]] = "disk full"

    engine = evaluator(["1", "2", "4"])
    Writer().attach(engine)
    with pytest.raises(InputsFailedError, match=re.escape("1 of 3 inputs failed: 2 (disk full)")):
        engine.run()


def test_second_run_starts_with_a_clean_sheet() -> None:
    engine = evaluator(["3", "4"])
    with pytest.raises(InputsFailedError):
        engine.run()
    engine.network = nn.Identity()
    engine.run()
    assert engine.failures == {}


def test_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    engine = evaluator([], recorder)
    with caplog.at_level(logging.INFO):
        engine.run()
    assert "Nothing to do" in caplog.text
    assert recorder.items == []
    assert recorder.events == ["completed"]  # handlers finish: the run before may have been killed


def film(*files: str) -> list[dict[str, Any]]:
    """Parts of a film, each in a file of its own, and an input after it."""
    parts = [
        {"image": f"/archive/{file}", "name": "film", "part": number, "parts": len(files)}
        for number, file in enumerate(files)
    ]
    return [*parts, {"image": "/archive/7", "name": "other", "part": 0, "parts": 1}]


def test_parts_of_a_film_come_in_order_with_their_numbers() -> None:
    recorder = Recorder()
    evaluator_of(film("1", "2", "4"), recorder).run()
    assert [(item["name"], int(item["part"]), int(item["parts"])) for item in recorder.items] == [
        ("film", 0, 3), ("film", 1, 3), ("film", 2, 3), ("other", 0, 1),
    ]  # fmt: skip
    assert [float(item["pred"]["anomaly_score"]) for item in recorder.items] == [1, 2, 4, 7]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("1", "3", "4"), "RuntimeError: no memory left"),
        (("1", "2 unreadable", "4"), "OSError: cannot open 2 unreadable"),
        (("1", "2", "5"), "ValueError: odd geometry"),
        (("3", "2 unreadable", "5"), "RuntimeError: no memory left"),
    ],
)
def test_a_part_that_fails_ends_its_film_alone(files: tuple[str, ...], reason: str) -> None:
    recorder = Recorder()
    engine = evaluator_of(film(*files), recorder)
    with pytest.raises(InputsFailedError, match=re.escape(f"1 of 2 inputs failed: film ({reason})")):
        engine.run()
    failed = [index for index, item in enumerate(recorder.items) if "error" in item]
    first = next(index for index, file in enumerate(files) if file not in ("1", "2", "4"))
    assert failed == list(range(first, 3))  # also the parts after it, which could have been scored
    assert {recorder.items[index]["error"] for index in failed} == {reason}
    assert recorder.items[-1]["name"] == "other"
    assert "error" not in recorder.items[-1]


def test_interruption_is_no_failed_input_and_handlers_can_save() -> None:
    class Interrupted(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            if image.mean() == 2:
                raise KeyboardInterrupt
            return {"anomaly_map": image, "anomaly_score": image.flatten(1).amax(dim=1)}

    recorder = Recorder()
    engine = evaluator(["1", "2", "4"], recorder)
    engine.network = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    assert engine.failures == {}
    assert [item["name"] for item in recorder.items] == ["1"]
    assert recorder.events == ["started", "terminate"]


def test_interruption_while_a_result_is_written() -> None:
    class Writer:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), self.interrupt)

        def interrupt(self, engine: Engine) -> None:
            raise KeyboardInterrupt

    recorder = Recorder()
    engine = evaluator(["1", "2", "4"], recorder)
    Writer().attach(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    assert recorder.events == ["started", "terminate"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_interrupt_like_the_keyboard(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)

    class Signalled(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            if image.mean() == 2:
                signal.raise_signal(number)
            return {"anomaly_map": image, "anomaly_score": image.flatten(1).amax(dim=1)}

    recorder = Recorder()
    engine = evaluator(["1", "2", "4"], recorder)
    engine.network = Signalled()
    with pytest.raises(StoppedError, match=name) as caught:
        engine.run()
    assert caught.value.number == number
    assert [item["name"] for item in recorder.items] == ["1"]
    assert recorder.events == ["started", "terminate"]
    assert signal.getsignal(number) is before


def test_signals_that_somebody_takes_care_of_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with stopped_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, handler)


def test_a_lost_worker_ends_the_run_but_handlers_can_save() -> None:
    lost = "DataLoader worker (pid 12) is killed by signal: Killed. "

    class Lost(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            if image.mean() == 2:
                raise RuntimeError(lost)  # torch raises it in a signal handler, wherever the program is
            return {"anomaly_map": image, "anomaly_score": image.flatten(1).amax(dim=1)}

    recorder = Recorder()
    engine = evaluator(["1", "2", "4"], recorder)
    engine.network = Lost()
    with pytest.raises(RuntimeError, match=r"A process that reads ahead \(--workers\) was killed.*does the rest"):
        engine.run()
    assert engine.failures == {}
    assert [item["name"] for item in recorder.items] == ["1"]
    assert recorder.events == ["started", "terminate"]


def test_a_handler_that_cannot_save_does_not_hide_why_the_run_ended() -> None:
    class Writer:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.full)
            engine.add_event_handler(Events.TERMINATE, self.full)

        def full(self, engine: Engine) -> None:
            raise OSError(28, f"full {engine.state.iteration}")

    engine = evaluator(["1", "2"])
    Writer().attach(engine)
    with pytest.raises(OSError, match="full 1"):
        engine.run()


def test_inputs_stay_where_they_are() -> None:
    """A volume is not moved to the device as a whole: the inferer moves some slices at a time."""
    seen = []

    def infer(inputs: Tensor, _: nn.Module) -> dict[str, Tensor]:
        seen.append(inputs.device.type)
        return {"anomaly_map": inputs, "anomaly_score": inputs.flatten(1).amax(dim=1)}

    FaultTolerantEvaluator(
        device=torch.device("meta"),
        val_data_loader=DataLoader(
            FaultTolerantDataset([{"image": "1.png", "name": "1.png"}], load), batch_size=1, collate_fn=list
        ),
        network=Doubling(),
        inferer=infer,
    ).run()
    assert seen == ["cpu"]


class Pairs:
    """An inferer that scores pictures together; a picture of threes fails, and with it all that it is shown with."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def __call__(self, inputs: Tensor, network: nn.Module) -> dict[str, Tensor]:
        self.shown.append(len(inputs))
        found: dict[str, Tensor] = network(inputs)
        return found

    def together(self, pictures: Sequence[Tensor], network: nn.Module) -> list[dict[str, Tensor]]:
        self.shown.append(len(pictures))
        if any(picture.mean() == 3 for picture in pictures):
            raise RuntimeError("no memory left")
        return [network(picture[None]) for picture in pictures]


def scored_in_lists(names: Sequence[str], batch_size: int, inferer: Any) -> tuple[Recorder, dict[str, str]]:
    data = [{"image": f"/archive/Doe John/{name}", "name": name} for name in names]
    recorder = Recorder()
    engine = FaultTolerantEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(FaultTolerantDataset(data, load), batch_size=batch_size, collate_fn=list),
        network=Doubling(),
        inferer=inferer,
        postprocessing=finish,
        val_handlers=[recorder],
    )
    with pytest.raises(InputsFailedError):
        engine.run()
    return recorder, engine.failures


def test_a_list_is_scored_together_and_again_one_by_one_when_that_fails() -> None:
    names = ["1", "2 unreadable", "4", "6", "5", "7", "3", "8"]
    pairs = Pairs()
    lists, failures = scored_in_lists(names, 4, pairs)
    alone, failures_alone = scored_in_lists(names, 1, Pairs())
    assert pairs.shown == [3, 4, 1, 1, 1, 1]  # the unreadable one is not shown; the second list fails as a whole
    assert failures == failures_alone
    assert [item["name"] for item in lists.items] == names
    for one, other in zip(lists.items, alone.items, strict=True):
        assert one.keys() == other.keys()
        if "error" not in one:
            assert torch.equal(one["pred"]["anomaly_map"], other["pred"]["anomaly_map"])


def test_a_lost_device_ends_the_run_with_one_sentence() -> None:
    """Nothing is computed on it any more: the inputs that follow are not marked as failed."""

    class Lost(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")

    recorder = Recorder()
    engine = evaluator(["1", "2"], recorder)
    engine.network = Lost()
    with pytest.raises(DeviceLostError) as caught:
        engine.run()
    assert str(caught.value) == (
        "The device can no longer be used (CUDA error: an illegal memory access was encountered): what is finished "
        "is kept, and the same command does the rest."
    )
    assert engine.failures == {}
    assert recorder.items == []
    assert recorder.events == ["started", "terminate"]
