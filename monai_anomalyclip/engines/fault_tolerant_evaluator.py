# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Inference over many inputs, in which a failed one does not stop the others."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.utils.enums import CommonKeys
from torch import Tensor

from monai_anomalyclip.data.failures import failure_reason, may_pass

__all__ = ["FaultTolerantEvaluator", "InputsFailedError", "StoppedError", "stopped_by_signals"]

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


def _keep_in_place(batch: Mapping[str, Any], *_: Any, **__: Any) -> tuple[Tensor, None]:
    """The images as they are: the inferer moves some slices at a time to the device, not a whole volume."""
    return batch[CommonKeys.IMAGE], None


class FaultTolerantEvaluator(SupervisedEvaluator):
    """MONAI's evaluator that notes a failed input and goes on with the next.

    Inputs come one by one (batch size 1), each with a ``name`` of its own; a film may come in parts of one name. One
    that could not be read arrives as an item with an ``error`` (see ``FaultTolerantDataset``); an exception in network
    or post-processing is noted in the same way, and the parts that follow are left out. The output is a list of one
    item: batch and output merged with ``score_s``, the seconds it took, or ``name`` and ``error``; handlers must expect
    both, so metrics cannot be attached. When the run is interrupted (Ctrl-C, SIGTERM, SIGHUP) or ends
    with an error, handlers of ``Events.TERMINATE`` can still save.

    Attributes:
        failures: reason by input name; handlers that fail on an item add to it.
        passing: those of them that may do well another time.
    """

    def __init__(self, *args: Any, prepare_batch: Callable[..., Any] = _keep_in_place, **kwargs: Any) -> None:
        super().__init__(*args, prepare_batch=prepare_batch, **kwargs)
        self.failures: dict[str, str] = {}
        self.passing: set[str] = set()

    def _iteration(self, engine: SupervisedEvaluator, batchdata: Mapping[str, Any]) -> list[dict[str, Any]]:
        name = str(batchdata["name"][0])
        if name in self.failures:
            return self._fail(name, self.failures[name])
        if "error" in batchdata:
            if "may_pass" in batchdata and bool(batchdata["may_pass"][0]):
                self.passing.add(name)
            return self._fail(name, str(batchdata["error"][0]))
        begun = time.perf_counter()
        try:
            super()._iteration(engine, dict(batchdata))
        except Exception as error:  # whatever it is, the other inputs are not to suffer
            if _worker_was_lost(error):  # torch says so wherever the program happens to be
                raise
            logger.debug("Traceback of the failed input:", exc_info=True)
            if may_pass(error):
                self.passing.add(name)
            return self._fail(name, failure_reason(error, batchdata))
        pairs = zip(engine.state.batch, engine.state.output, strict=True)
        return [{**item, **output, "score_s": time.perf_counter() - begun} for item, output in pairs]

    def _fail(self, name: str, reason: str) -> list[dict[str, Any]]:
        self.failures[name] = reason
        return [{"name": name, "error": reason}]

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
        with stopped_by_signals():
            try:
                super().run(global_epoch)
            except BaseException as error:
                with contextlib.suppress(Exception):  # the reason counts, not that nothing could be saved then
                    self.fire_event(Events.TERMINATE)
                if _worker_was_lost(error):
                    raise RuntimeError(
                        "A process that reads ahead (--workers) was killed, perhaps for want of memory: what is "
                        "finished stays, the same command goes on with the rest; use fewer workers."
                    ) from error
                raise
        if self.failures:
            count = len({item["name"] for item in self.data_loader.dataset.data})
            listed = "; ".join(f"{name} ({reason})" for name, reason in list(self.failures.items())[:_LISTED])
            more = f"; and {len(self.failures) - _LISTED} more" if len(self.failures) > _LISTED else ""
            raise InputsFailedError(f"{len(self.failures)} of {count} inputs failed: {listed}{more}", self.passing)
