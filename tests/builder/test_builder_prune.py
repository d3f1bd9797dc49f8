# SPDX-License-Identifier: Apache-2.0
"""What stays out of the images, and that nothing is missed there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder import every_import
from builder.lock import parse_lock
from builder.prune import UNUSED, is_left_out, needed, prune

PIN = "{name}==1 \\\n    --hash=sha256:aa\n    # via\n{via}"


def lock(**via: str) -> str:
    askers = {
        name: "".join(f"    #   {each}\n" for each in said.split()) for name, said in via.items()
    }
    return "".join(
        PIN.format(name=name.replace("_", "-"), via=lines) for name, lines in askers.items()
    )


@pytest.mark.parametrize(
    ("asker", "kept"),
    [
        ("kubernetes", {"kubernetes", "click"}),
        ("kubernetes kmesh", {"kubernetes", "click", "aiohttp", "yarl"}),
        ("kubernetes click", {"kubernetes", "click", "aiohttp", "yarl"}),
    ],
)
def test_what_only_an_unused_part_needs_stays_out(asker: str, kept: set[str]) -> None:
    text = lock(kubernetes="kmesh", click="kmesh", aiohttp=asker, yarl="aiohttp")
    assert {pin.name for pin in needed(parse_lock(text))} == kept


def test_what_stays_out_is_still_locked_and_asked_for(checkout: Path) -> None:
    """A rule that matches nothing any more hides what it was for."""
    pins = parse_lock((checkout / "requirements" / "runtime.lock").read_text())
    for asker, unused in UNUSED.items():
        assert unused == {name for name in unused if asker in pins[name].via}
    assert {"grpcio", "kubernetes", "click", "rich"} <= {pin.name for pin in needed(pins)}
    assert "aiohttp" not in {pin.name for pin in needed(pins)}


FILES = {
    "kubernetes/aio/client/models/v1_pod.py": False,
    "kubernetes/config/kube_config_test.py": False,
    "kubernetes/client/models/v1_pod.py": True,
    "certifi/tests/__init__.py": False,
    "certifi/cacert.pem": True,
    "certifi-1.dist-info/RECORD": False,
    "certifi-1.dist-info/METADATA": True,
    "certifi-1.dist-info/licenses/LICENSE": True,
    "grpc/_cython/cygrpc.pyi": False,
    "grpc/_cython/_credentials/roots.pem": True,
    "testing/aio/x.py": True,
    "bin/watchfiles": False,
}


@pytest.mark.parametrize(("name", "kept"), FILES.items())
def test_files_that_no_import_reaches_stay_out(name: str, *, kept: bool) -> None:
    assert is_left_out(name) != kept or name.startswith("bin/")


def test_a_tree_is_pruned_with_its_empty_directories(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    prune(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {name for name, kept in FILES.items() if kept}
    assert not (tmp_path / "kubernetes" / "aio").exists()
    assert not (tmp_path / "certifi" / "tests").exists()


def run(place: Path, files: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    code = Path(every_import.__file__).read_text()
    argv = [sys.executable, "-c", code, "package", "-package.tool"]
    env = {"PYTHONPATH": str(place)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


GOOD = {
    "package/__init__.py": "from package import inner\nfrom json import *\nimport bcc.nowhere\n",
    "package/tool.py": "import not_in_the_image\n",
    "package/inner.py": "def late():\n    from json import dumps\n    import os.path\n",
}


def test_all_imports_of_a_package_are_carried_out(tmp_path: Path) -> None:
    done = run(tmp_path, {**GOOD, "package/__init__.py": "from package import inner\n"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "5 imports\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "import aiohttp_gone",
            "aiohttp_gone (itself, wanted by package.inner): ModuleNotFoundError",
        ),
        ("from json import gone", "json (gone, wanted by package.inner): ModuleNotFoundError"),
        ("from package.gone import x", "package.gone (x, wanted by package.inner)"),
    ],
)
def test_an_import_inside_a_function_is_missed(tmp_path: Path, line: str, said: str) -> None:
    files = {**GOOD, "package/__init__.py": "", "package/inner.py": f"def late():\n    {line}\n"}
    done = run(tmp_path, files)
    assert done.returncode == 1
    assert said in done.stderr
