# SPDX-License-Identifier: Apache-2.0
"""The second provider's step of the matrix, without its boot: the module's cache, and what counts as a failure."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

import ci.matrix.module as made
from ci.kernels.debian import Kernel, Wanted
from ci.matrix.openeuler import complaints
from runtime.errors import KmeshError
from runtime.probe.provider import KFUNCS, ULP

KERNEL = Kernel(release="6.12.1", image=Path("/x"), config=Path("/y"))
LISTED = Wanted("trixie", ("linux-image-6.12.*",))
GOOD: dict[str, Any] = {
    "before": {"finding": None, "provider": {"name": "stock"}, "load": "not looked at"},
    "after": {"finding": {"verdict": "present"}, "provider": {"name": "stock"}, "load": "present"},
    "tests": {"passed": 3, "failed": [], "skipped": {}},
}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run to make modules, which a file of their number is then."""
    ran: list[list[str]] = []

    def run(argv: list[str], **_more: Any) -> None:
        ran.append(argv)
        [target] = [
            word.split()[-1] for word in argv if word.startswith("--customize-hook=copy-out")
        ]
        Path(target, f"{made.NAME}.ko").write_text(str(len(ran)))

    monkeypatch.setattr(made, "run", run)
    monkeypatch.setattr(made, "cache_dir", lambda: tmp_path / "cache")
    return ran


def test_a_module_is_compiled_once(commands: list[list[str]]) -> None:
    first = made.module(KERNEL, LISTED)
    assert first.read_text() == "1"
    assert made.module(KERNEL, LISTED) == first
    assert len(commands) == 1
    assert any("linux-headers-6.12.1" in word for word in commands[0])


def test_another_kernel_or_other_sources_are_another_module(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made.module(KERNEL, LISTED)
    other = Kernel(release="6.12.2", image=KERNEL.image, config=KERNEL.config)
    assert made.module(other, LISTED) != first
    changed = tmp_path / "kfuncs.c"
    changed.write_text("int other;\n")
    monkeypatch.setattr(made, "sources", lambda: [changed])
    assert made.module(KERNEL, LISTED) != first
    assert len(commands) == 3


def test_no_module_at_the_end_is_a_failure_and_leaves_nothing(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "run", lambda argv, **_more: commands.append(argv))
    with pytest.raises(KmeshError, match=r"no kmesh_kfuncs\.ko was made for 6\.12\.1"):
        made.module(KERNEL, LISTED)
    assert list((tmp_path / "cache/matrix").iterdir()) == []


def test_the_module_offers_what_the_prober_and_the_programs_look_for(checkout: Path) -> None:
    text = "".join(path.read_text() for path in made.sources())
    offered = set(re.findall(r"^BTF_ID_FLAGS\(func, (\w+)\)", text, re.MULTILINE))
    assert set(KFUNCS) <= offered
    assert f'.name = "{ULP}"' in text
    programs = (checkout / "bpf/openeuler/kfuncs.h").read_text()
    imported = re.findall(r"^extern int (\w+)\(", programs, re.MULTILINE)
    assert set(imported) == set(KFUNCS)


def test_no_image_carries_it(checkout: Path) -> None:
    assert (checkout / "bpf/openeuler/UNSHIPPED").exists()


def test_a_good_row_has_no_complaints() -> None:
    assert complaints(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("before", "finding"), {"verdict": "present"}, "without the module"),
        (("after", "finding"), None, "with the module the prober finds None"),
        (("after", "finding"), {"verdict": "absent"}, "with the module"),
        (("after", "load"), "absent", "object is absent"),
        (("after", "provider"), {"name": "kmesh"}, "the provider is"),
        (("tests", "failed"), ["a::b"], "a::b failed"),
        (("tests", "skipped"), {"no": 2}, "2 skipped: no"),
        (("tests", "passed"), 0, "no test passed"),
    ],
)
def test_each_thing_that_goes_wrong_is_a_complaint(path: Any, value: Any, said: str) -> None:
    row = copy.deepcopy(GOOD)
    row[path[0]][path[1]] = value
    assert any(said in line for line in complaints(row))
