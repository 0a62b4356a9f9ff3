# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Inference over many inputs, in which a failed one does not stop the others."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from monai.utils.enums import CommonKeys
from torch import Tensor

from monai_anomalyclip.data.errors import failure_reason, may_pass

__all__ = ["DeviceLostError", "FaultTolerantEvaluator", "InputsFailedError", "StoppedError", "stopped_by_signals"]

logger = logging.getLogger(__name__)

_LISTED = 5


class InputsFailedError(RuntimeError):
    """Some inputs could not be read, processed or written; the others are done.

    Args:
        message: which, and why.
        passing: names of those that may do well another time (a full disk, a network drive that ails).
    """

    def __init__(self, message: str, passing: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.passing = frozenset(passing)


class DeviceLostError(RuntimeError):
    """The device reported an error after which it computes nothing more in this process."""


class StoppedError(KeyboardInterrupt):
    """A signal asked the run to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise :class:`StoppedError`, as Ctrl-C raises KeyboardInterrupt.

    Not where the program's user has taken care of them (``nohup``), and not outside of the main thread, where Python
    knows no signals.
    """

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # impatience must not keep the tables from being written
        raise StoppedError(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker_was_lost(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _device_was_lost(error: BaseException) -> bool:
    # Too little memory is no such error. Torch has a class for them since 2.8 only.
    lost = isinstance(error, getattr(torch, "AcceleratorError", ())) or str(error).startswith("CUDA error")
    return isinstance(error, RuntimeError) and lost and not isinstance(error, torch.OutOfMemoryError)


class FaultTolerantEvaluator(SupervisedEvaluator):
    """MONAI's evaluator that notes a failed input and goes on with the next.

    A batch is a list of items (:class:`~monai_anomalyclip.data.InputLoader`), each with a ``name`` of its own; a film
    may come in parts of one name. An item that could not be read has an ``error`` (see ``FaultTolerantDataset``); an
    exception in network or post-processing is noted in the same way, and the parts that follow are left out. Pictures
    of a batch are scored together where the inferer can (its method ``together``), all else one by one: the inferer
    moves some slices at a time to the device. The output is a list: each item merged with what was found and
    ``score_s``, the seconds it took, or ``name`` and ``error``; handlers must expect both, so metrics cannot be
    attached. When the run is interrupted (Ctrl-C, SIGTERM, SIGHUP) or ends with an error, handlers of
    ``Events.TERMINATE`` can still save.

    Attributes:
        failures: reason by input name; handlers that fail on an item add to it.
        passing: those of them that may do well another time.

    Example::

        evaluator = FaultTolerantEvaluator(
            device=device, val_data_loader=loader, network=network, inferer=AnomalySliceInferer(), val_handlers=[writer]
        )
        evaluator.run()
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, decollate=False, **kwargs)
        self.failures: dict[str, str] = {}
        self.passing: set[str] = set()

    def _iteration(self, engine: SupervisedEvaluator, batchdata: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        together = self._together(batchdata)
        results = []
        for number, item in enumerate(batchdata):
            begun = time.perf_counter()
            if reason := self.failures.get(name := str(item["name"]), str(item.get("error", ""))):
                if item.get("may_pass"):
                    self.passing.add(name)
                results.append(self._fail(name, reason))
                continue
            try:
                seconds, found = together.get(number) or (0.0, self._alone(item[CommonKeys.IMAGE]))
                scored = self._processed(engine, item, found)
            except Exception as error:  # whatever it is, the other inputs are not to suffer
                results.append(self._fail(name, _reason(error, item)))
                if may_pass(error):
                    self.passing.add(name)
            else:
                results.append({**scored, "score_s": seconds + time.perf_counter() - begun})
        return results

    def _together(self, items: Sequence[Mapping[str, Any]]) -> dict[int, tuple[float, dict[str, Any]]]:
        """What is found in the pictures among the items, by their numbers, and each one's share of the seconds."""
        images = {number: item[CommonKeys.IMAGE] for number, item in enumerate(items) if "error" not in item}
        pictures = {number: image for number, image in images.items() if image.ndim == 3}
        if len(pictures) < 2 or not hasattr(self.inferer, "together"):
            return {}
        begun = time.perf_counter()
        try:
            found = self.inferer.together(list(pictures.values()), self.network)
        except Exception as error:  # which of them is to blame shows when each is scored alone
            _reason(error, {})
            return {}
        seconds = (time.perf_counter() - begun) / len(pictures)
        return {number: (seconds, one) for number, one in zip(pictures, found, strict=True)}

    def _alone(self, image: Tensor) -> Any:
        return self.inferer(image[None], self.network)

    def _processed(self, engine: SupervisedEvaluator, item: Mapping[str, Any], found: Any) -> dict[str, Any]:
        """Item and output after post-processing, without the dimension of the batch."""
        engine.state.batch = [dict(item)]
        engine.state.output = [{CommonKeys.IMAGE: item[CommonKeys.IMAGE], CommonKeys.PRED: _first(found)}]
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return {**engine.state.batch[0], **engine.state.output[0]}

    def _fail(self, name: str, reason: str) -> dict[str, Any]:
        self.failures[name] = reason
        return {"name": name, "error": reason}

    def run(self, global_epoch: int = 1) -> None:
        """Process all inputs.

        Raises:
            InputsFailedError: at the end, when an input failed.
        """
        self.failures.clear()
        self.passing.clear()
        if not len(self.data_loader):
            logger.info("Nothing to do: all results are there already.")
            self.fire_event(Events.COMPLETED)  # the run before may have been killed before it could finish
            return
        fixed = getattr(getattr(self.network, "module", self.network), "fixed_prompts", contextlib.nullcontext)
        with stopped_by_signals(), eval_mode(self.network), fixed():  # once, not around each input
            try:
                super().run(global_epoch)
            except BaseException as error:
                with contextlib.suppress(Exception):  # the reason counts, not that nothing could be saved then
                    self.fire_event(Events.TERMINATE)
                if _worker_was_lost(error):
                    raise RuntimeError(
                        "A process that reads ahead (--workers) was killed, perhaps because memory ran out: what is "
                        "finished is kept, and the same command does the rest; use fewer workers."
                    ) from error
                raise
        if self.failures:
            count = len({item["name"] for item in self.data_loader.dataset.data})
            listed = "; ".join(f"{name} ({reason})" for name, reason in list(self.failures.items())[:_LISTED])
            more = f"; and {len(self.failures) - _LISTED} more" if len(self.failures) > _LISTED else ""
            raise InputsFailedError(f"{len(self.failures)} of {count} inputs failed: {listed}{more}", self.passing)


def _first(found: Any) -> Any:
    """The only item of a batch."""
    if isinstance(found, Mapping):
        return {key: value[0] for key, value in found.items()}
    return found[0]


def _reason(error: Exception, item: Mapping[str, Any]) -> str:
    """Why an input failed.

    Raises:
        DeviceLostError: all others would fail, too.
        RuntimeError: torch tells that a process that reads ahead is gone, wherever the program happens to be.
    """
    if _worker_was_lost(error):
        raise error
    if _device_was_lost(error):
        raise DeviceLostError(
            f"The device can no longer be used ({str(error).splitlines()[0]}): what is finished is kept, and "
            "the same command does the rest."
        ) from error
    logger.debug("Traceback of the failed input:", exc_info=True)
    return failure_reason(error, item)
