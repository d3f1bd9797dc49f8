# SPDX-License-Identifier: Apache-2.0
"""Cookies of network namespaces: from the kernel, and from a program where it does not tell."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runtime.kernel import netns
from runtime.kernel.netns import NetnsError, netns_cookie
from tests.dataplane.world import World

pytestmark = pytest.mark.root


def test_namespaces_have_cookies_of_their_own(world: World, objects: Path) -> None:
    with World() as other:
        places = (None, world.netns, other.netns)
        cookies = [netns_cookie(place, objects=objects) for place in places]
        assert len(set(cookies)) == 3
        assert cookies == [netns_cookie(place, objects=objects) for place in places]


def test_a_program_tells_the_same(
    world: World, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = netns_cookie(world.netns, objects=objects)

    def unknown() -> int:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    monkeypatch.setattr(netns, "_ask_kernel", unknown)
    assert netns_cookie(world.netns, objects=objects) == expected
    assert netns_cookie(objects=objects) != expected
    with pytest.raises(NetnsError, match=str(world.netns)):
        netns_cookie(world.netns)


def test_what_is_no_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(NetnsError, match=str(wrong)):
            netns_cookie(wrong)
