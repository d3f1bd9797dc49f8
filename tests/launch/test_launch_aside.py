# SPDX-License-Identifier: Apache-2.0
"""Work in a child: its result, its errors, and a child that fails."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from runtime.errors import KmeshError
from runtime.launch.aside import Aside


def _nothing() -> None:
    pass


def _raise() -> int:
    raise KmeshError("no", hint="yes")


def _die_in(child_of: int) -> Callable[[], int]:
    def work() -> int:
        if os.getpid() != child_of:
            os._exit(1)
        return 7

    return work


def test_the_work_is_done_in_another_process() -> None:
    aside = Aside(os.getpid, in_child=_nothing)
    assert aside.result() != os.getpid()
    aside.close()


def test_an_error_keeps_its_hint() -> None:
    with pytest.raises(KmeshError, match="no") as caught:
        Aside(_raise, in_child=_nothing).result()
    assert caught.value.hint == "yes"


def test_where_the_child_dies_the_work_is_done_here() -> None:
    assert Aside(_die_in(os.getpid()), in_child=_nothing).result() == 7
