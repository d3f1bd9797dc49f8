# SPDX-License-Identifier: Apache-2.0
"""What the repository promises of itself."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CODE = {".py", ".c", ".h", ".sh", ".j2"}


def tracked(checkout: Path) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=checkout, capture_output=True, check=True, text=True
    )
    return [checkout / name for name in listing.stdout.split("\0") if name]


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))


def test_every_source_file_names_its_licence(checkout: Path) -> None:
    without = [
        str(path.relative_to(checkout))
        for path in tracked(checkout)
        if path.suffix in CODE
        and path.is_file()
        and not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))
        and "SPDX-License-Identifier:" not in path.read_text(errors="replace")[:200]
    ]
    assert without == []


def test_kernel_accepts_the_licence_of_bpf_sources(checkout: Path) -> None:
    sources = list((checkout / "bpf").rglob("*.bpf.c"))
    assert sources
    for source in sources:
        assert re.search(r"SPDX-License-Identifier:.*GPL-2\.0", source.read_text()), source


def test_locks_agree_and_every_pin_has_a_hash(checkout: Path) -> None:
    runtime = pins(checkout / "requirements/runtime.lock")
    everything = pins(checkout / "requirements/dev.lock")
    assert runtime
    assert {name: everything.get(name) for name in runtime} == runtime
    for lock in ("runtime", "dev"):
        text = (checkout / f"requirements/{lock}.lock").read_text()
        requirements = re.split(r"\n(?=[a-z0-9-]+==)", text)
        assert all("--hash=sha256:" in part for part in requirements if "==" in part)


def test_locks_hold_every_direct_dependency(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    names = {re.split(r"[<>=!~\[]", item)[0].lower().replace("_", "-") for item in wanted}
    assert names <= set(pins(checkout / "requirements/dev.lock"))


@pytest.mark.parametrize("target", ["docker", "bpf", "test", "lint", "demo", "clean"])
def test_make_help_lists_the_target(checkout: Path, target: str) -> None:
    text = subprocess.run(
        ["make", "help"], cwd=checkout, capture_output=True, check=True, text=True
    ).stdout
    assert re.search(rf"^  {target}\s+\S", text, re.MULTILINE)


def contracts(checkout: Path, place: Path) -> str:
    linter = Path(sys.executable).with_name("lint-imports")
    argv = [str(linter), "--no-cache", "--config", str(checkout / "pyproject.toml")]
    env = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("builder/plan.py", "import docker", "stay in one module each"),
        ("builder/labels.py", "from jinja2 import Template", "stay in one module each"),
        ("runtime/log.py", "import docker", "stay in one module each"),
        ("runtime/model/policy.py", "from runtime.tables import layout", "only point downwards"),
        ("runtime/version.py", "import builder.cache", "never needs the builder"),
    ],
)
def test_the_linter_knows_the_layers(
    checkout: Path, tmp_path: Path, module: str, line: str, broken: str
) -> None:
    for package in ("builder", "runtime"):
        shutil.copytree(
            checkout / package, tmp_path / package, ignore=shutil.ignore_patterns("data")
        )
    with (tmp_path / module).open("a") as stream:
        stream.write(f"\n{line}\n")
    verdicts = contracts(checkout, tmp_path).splitlines()
    (told,) = [each for each in verdicts if " BROKEN" in each]
    assert broken in told


def test_every_place_of_the_sources_is_in_the_guide(checkout: Path) -> None:
    guide = (checkout / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`([a-z/]+/)`", guide))
    there = {f"bpf/{path.name}/" for path in (checkout / "bpf").iterdir() if path.is_dir()}
    there = there - {"bpf/include/"} | {
        "bpf/include/kmesh/",
        "builder/",
        "runtime/",
        "images/",
        "ci/",
    }
    assert there <= named
    assert [name for name in named if not (checkout / name).is_dir()] == []


def test_commands_of_the_readme_exist(checkout: Path) -> None:
    makefile = (checkout / "Makefile").read_text()
    commands = re.findall(r"^\s*make ([a-z-]+)", (checkout / "README.md").read_text(), re.MULTILINE)
    assert {"docker", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command


def test_links_of_the_documentation_lead_somewhere(checkout: Path) -> None:
    pages = [*checkout.glob("*.md"), *(checkout / "docs").glob("*.md")]
    links = [
        page.parent / link
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    ]
    assert len(links) > 5
    assert [str(link) for link in links if not link.exists()] == []
