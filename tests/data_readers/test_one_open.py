# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import weakref

import pytest

from monai_anomalyclip.data.one_open import one_open


class Film:
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def use(film: Film, *, last: bool = False) -> None:
    with one_open(film, last=last):
        pass


def test_another_one_closes_the_former() -> None:
    first, second = Film(), Film()
    use(first)
    use(first)
    assert first.closed == 0
    with one_open(second, last=False):
        assert first.closed == 1  # before the second one takes memory, too
    use(first)
    assert (first.closed, second.closed) == (1, 1)


def test_the_last_part_and_errors_close() -> None:
    film = Film()
    use(film, last=True)
    assert film.closed == 1
    with pytest.raises(ValueError, match="damaged"), one_open(film, last=False):
        raise ValueError("damaged")
    assert film.closed == 2
    use(Film())
    assert film.closed == 2  # it was not kept


def test_what_is_in_use_is_left_alone() -> None:
    """Two threads read two films at once, and a film is read while another one goes on."""
    outer, inner = Film(), Film()
    use(outer)
    with one_open(outer, last=False):
        use(inner)
        assert (outer.closed, inner.closed) == (0, 0)
    assert (outer.closed, inner.closed) == (0, 1)


def test_nothing_is_kept_alive() -> None:
    film = Film()
    use(film)
    gone = weakref.ref(film)
    del film
    gc.collect()
    assert gone() is None
    use(Film())
