# SPDX-License-Identifier: Apache-2.0
"""Earlier findings are believed only while nothing they depend on has changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.probe import cache
from runtime.probe.facts import Facts, running_facts
from runtime.probe.verdict import Evidence, Finding, Level, Verdict

Run = Callable[..., subprocess.CompletedProcess[str]]
FACTS = Facts(release="6.1", build_id="aa", capabilities=frozenset({"BPF"}), kconfig={"A": "y"})


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KMESH_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def key(facts: Facts = FACTS, **more: object) -> str:
    arguments = {"btf": None, "objects": "o", "version": "1", **more}
    return cache.cache_key(facts, **arguments)  # type: ignore[arg-type]


def finding(verdict: Verdict = Verdict.PRESENT) -> Finding:
    evidence = Evidence(level=Level.LOAD, verdict=verdict, summary="x", errno=1, log="y")
    return Finding(capability="a.b", verdict=verdict, evidence=(evidence,))


@pytest.mark.parametrize(
    "change",
    [
        {"build_id": "bb"},
        {"release": "6.2"},
        {"capabilities": frozenset({"BPF", "NET_ADMIN"})},
        {"capabilities": frozenset()},
        {"kconfig": {"A": "n"}},
        {"lockdown": "confidentiality"},
        {"livepatches": ("fix",)},
        {"cgroup2_mount": "/elsewhere"},
        {"seccomp": 2},
        {"jit": "0"},
    ],
)
def test_every_fact_is_in_the_key(change: dict[str, object]) -> None:
    assert key(replace(FACTS, **change)) != key()  # type: ignore[arg-type]


def test_the_rest_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    btf = tmp_path / "btf"
    btf.write_bytes(b"one")
    keys = [key(), key(objects="p"), key(version="2"), key(variant=["CVE-1"]), key(btf=btf)]
    btf.write_bytes(b"two")
    keys.append(key(btf=btf))
    monkeypatch.setenv("KMESH_IMAGE_DIGEST", "sha256:1")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == key()


def test_kept_and_believed() -> None:
    assert cache.load(key()) is None
    assert cache.store(key(), [finding()], taken_at="now")
    kept = cache.load(key())
    assert kept is not None
    assert (kept.findings, kept.taken_at) == ((finding(),), "now")
    assert cache.load(key(objects="other")) is None


@pytest.mark.parametrize("verdict", [Verdict.DENIED, Verdict.INCONCLUSIVE])
def test_what_may_be_otherwise_next_time_is_not_kept(verdict: Verdict) -> None:
    assert not cache.store(key(), [finding(), finding(verdict)], taken_at="now")
    assert cache.load(key()) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', "null"])
def test_a_damaged_file_is_not_believed(own_directory: Path, content: str) -> None:
    cache.store(key(), [finding()], taken_at="now")
    (own_directory / "probe-cache.json").write_text(content)
    assert cache.load(key()) is None


def test_findings_that_are_none(own_directory: Path) -> None:
    cache.store(key(), [finding()], taken_at="now")
    path = own_directory / "probe-cache.json"
    data = json.loads(path.read_text())
    data["findings"][0]["verdict"] = "fine"
    path.write_text(json.dumps(data))
    assert cache.load(key()) is None


def test_a_file_that_others_can_write_is_not_believed(own_directory: Path) -> None:
    cache.store(key(), [finding()], taken_at="now")
    (own_directory / "probe-cache.json").chmod(0o666)
    assert cache.load(key()) is None


def test_where_nothing_can_be_written_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KMESH_RUN_DIR", str(tmp_path / "file" / "below"))
    assert not cache.store(key(), [finding()], taken_at="now")


def test_objects_by_name_and_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.bpf.o", tmp_path / "b.bpf.o"
    first.write_bytes(b"1")
    one = cache.objects_digest([first])
    second.write_bytes(b"1")
    assert len({one, cache.objects_digest([second]), cache.objects_digest([first, second])}) == 3
    first.write_bytes(b"2")
    assert cache.objects_digest([first]) != one


@pytest.mark.root
def test_the_command_uses_it(kmesh_probe: Run, objects: Path) -> None:
    """Same kernel, objects and privileges: believed. Fewer privileges: not."""
    where = ("--output", "json", "--objects", str(objects))

    def cached(*more: str, behind: tuple[str, ...] = ()) -> bool:
        return bool(json.loads(kmesh_probe(*where, *more, behind=behind).stdout)["cached"])

    kmesh_probe(*where)
    open_ones = json.loads(kmesh_probe(*where).stdout)
    kept = all(f["verdict"] not in ("denied", "inconclusive") for f in open_ones["findings"])
    assert open_ones["cached"] is kept
    assert not cached("--no-cache")
    assert not cached("--ignore-bug", "CVE-2024-56720")
    without = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert not cached(behind=without)
    assert running_facts().capabilities


def test_inspections_are_remembered_by_content(
    objects: Path, monkeypatch: pytest.MonkeyPatch, own_directory: Path
) -> None:
    path = objects / "compat" / "connect4.bpf.o"
    first = cache.Inspections()
    info = first.inspect(path)
    first.keep()
    asked = replace(info, license="asked again")
    monkeypatch.setattr("runtime.objects.inspect.inspect_object", lambda _path: asked)
    assert cache.Inspections().inspect(path) == info
    assert cache.Inspections(enabled=False).inspect(path) == asked
    (own_directory / "objects-cache.json").chmod(0o666)
    assert cache.Inspections().inspect(path) == asked


def test_a_damaged_memory_of_inspections_is_not_believed(
    objects: Path, own_directory: Path
) -> None:
    path = objects / "compat" / "connect4.bpf.o"
    first = cache.Inspections()
    info = first.inspect(path)
    first.keep()
    memory = own_directory / "objects-cache.json"
    data = json.loads(memory.read_text())
    (known,) = data["objects"]
    damages: list[dict[str, object]] = [{}, {"programs": 1}, {"programs": [{}]}]
    for damaged in damages:
        memory.write_text(json.dumps({**data, "objects": {known: damaged}}))
        assert cache.Inspections().inspect(path) == info
    for text in ("", "[]", '{"code": 1}', json.dumps({**data, "objects": None})):
        memory.write_text(text)
        assert cache.Inspections().inspect(path) == info
