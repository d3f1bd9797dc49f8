# SPDX-License-Identifier: Apache-2.0
"""The poorer host that takes a richer root: no BTF, but headers and bcc."""

from __future__ import annotations

from pathlib import Path

from ci.matrix.headers import _SCENARIO, _merge_usr
from ci.matrix.inside.scenarios import SCENARIOS
from ci.matrix.plan import stages


def test_it_is_not_among_what_every_root_can_be_made_into() -> None:
    assert SCENARIOS[_SCENARIO].headers
    assert f"degrade={_SCENARIO}" not in [*stages("full"), *stages("quick")]
    assert "degrade=no-btf" in stages("full")


def test_nothing_takes_the_place_of_the_guests_links(tmp_path: Path) -> None:
    modules = tmp_path / "lib/modules/1.2"
    modules.mkdir(parents=True)
    (modules / "build").symlink_to("/usr/src/linux-headers-1.2")
    _merge_usr(tmp_path)
    assert not (tmp_path / "lib").exists()
    assert (tmp_path / "usr/lib/modules/1.2/build").readlink() == Path("/usr/src/linux-headers-1.2")
    _merge_usr(tmp_path)  # a package that has moved to /usr already
