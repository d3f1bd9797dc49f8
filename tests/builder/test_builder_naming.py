# SPDX-License-Identifier: Apache-2.0
"""Names for images: all or none, whatever the engine or the user does meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from builder.engine import EngineError, ImageFacts
from builder.interrupt import ended_cleanly, undisturbed
from builder.naming import name_all
from runtime.errors import KmeshError

WANTED = {"hub/kmesh:1": "new-1", "hub/kmesh-enhanced:1": "new-2", "hub/kmesh-build:1": "new-3"}
OLD = {"hub/kmesh:1": "old-1", "hub/kmesh-build:1": "new-3"}


class Names:
    """An engine's names.

    Args:
        fails: the number of the request to change a name that is refused, and how many after it.
    """

    def __init__(self, fails: range = range(0)) -> None:
        self.names, self._requests, self._fails = dict(OLD), 0, fails
        self.meanwhile: Callable[[], None] = lambda: None

    def find(self, reference: str) -> ImageFacts | None:
        image = self.names.get(reference)
        return ImageFacts(image, (reference,), {}, 0, (), ()) if image else None

    def _change(self) -> None:
        self._requests += 1
        self.meanwhile()
        if self._requests in self._fails:
            raise EngineError("the Docker engine is gone", hint="nothing was tagged")

    def tag(self, image: str, reference: str) -> None:
        self._change()
        self.names[reference] = image

    def remove(self, image: str, *, keep_parents: bool = True) -> None:  # noqa: ARG002
        self._change()
        del self.names[image]


def test_all_images_are_named_and_what_lost_its_name_is_told() -> None:
    engine = Names()
    nameless = name_all(engine, WANTED)
    assert engine.names == WANTED
    assert [image.id for image in nameless] == ["old-1"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_name_that_is_refused_takes_back_those_before_it(number: int) -> None:
    engine = Names(range(number, number + 1))
    with pytest.raises(EngineError, match="engine is gone") as error:
        name_all(engine, WANTED)
    assert engine.names == OLD
    assert error.value.hint == "nothing was tagged"


def test_names_that_cannot_be_taken_back_are_told() -> None:
    engine = Names(range(2, 100))
    with pytest.raises(KmeshError, match=r"engine is gone; names that have changed: hub/kmesh:1$"):
        name_all(engine, WANTED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_waits_until_all_have_their_names(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Names()
    engine.meanwhile = lambda: os.kill(os.getpid(), number)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]

    def name_then_go_on() -> None:
        with ended_cleanly("nothing") as ending:
            with undisturbed():
                name_all(engine, WANTED)
                ending.left = "all"
            pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        name_then_go_on()
    assert engine.names == WANTED
    assert capsys.readouterr().err == "interrupted: all\n"
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_an_error_is_not_hidden_by_an_interrupt() -> None:
    engine = Names(range(1, 2))
    engine.meanwhile = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(EngineError), ended_cleanly("nothing"), undisturbed():
        name_all(engine, WANTED)
