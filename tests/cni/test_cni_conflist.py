# SPDX-License-Identifier: Apache-2.0
"""Our plugin in the chain: put there, kept there, taken out, and everything else as it was."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cni.conflist import ConflistError, chosen, with_plugin, without_plugin
from runtime.cni.install import Installation, remove
from runtime.errors import KmeshError
from tests.launch.conftest import until

BRIDGE = {
    "cniVersion": "0.4.0",
    "name": "net",
    "plugins": [{"type": "bridge"}, {"type": "portmap"}],
}
SOCKET = "/run/kmesh/cni.sock"

_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_plugins = st.builds(
    lambda more, kind: {**more, "type": kind},
    st.dictionaries(st.text(max_size=5), _values, max_size=3),
    st.sampled_from(["bridge", "portmap", "calico", "bandwidth"]),
)


def types(text: str) -> list[str]:
    return [plugin["type"] for plugin in json.loads(text)["plugins"]]


@given(
    st.lists(_plugins, min_size=1, max_size=4),
    st.dictionaries(st.text(max_size=5), _values, max_size=3),
)
def test_in_and_out_again_changes_nothing(plugins: list[Any], more: dict[str, Any]) -> None:
    before = {**more, "name": "n", "plugins": plugins}
    text = with_plugin(json.dumps(before), socket=SOCKET)
    assert text is not None
    assert types(text)[-1] == "kmesh-cni"
    assert with_plugin(text, socket=SOCKET) is None, "a second time there is nothing to do"
    after = without_plugin(text)
    assert after is not None
    assert json.loads(after) == before
    assert without_plugin(after) is None


def test_plugin_moves_to_the_end_and_is_there_once() -> None:
    text = with_plugin(json.dumps(BRIDGE), socket="/old")
    assert text is not None
    changed = json.loads(text)
    changed["plugins"].append({"type": "tuning"})
    text = with_plugin(json.dumps(changed), socket=SOCKET)
    assert text is not None
    assert types(text) == ["bridge", "portmap", "tuning", "kmesh-cni"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"plugins": 1}', '{"plugins": []}', "[" * 5000]
)
def test_what_is_no_configuration_is_left_alone(text: str) -> None:
    with pytest.raises(ConflistError):
        with_plugin(text, socket=SOCKET)


def test_file_that_runtimes_take_is_the_first_they_read() -> None:
    assert chosen(["99-z.conflist", "10-a.conflist.bak", "20-b.conf"]) == "20-b.conf"
    assert chosen([]) is None


class Host:
    """The host's directories, and the installation on them."""

    def __init__(self, path: Path) -> None:
        self.bin, self.conf = path / "bin", path / "net.d"
        self.conf.mkdir()
        self.program = path / "kmesh-cni"
        self.program.write_bytes(b"program")
        self.list = self.conf / "10-net.conflist"
        self.installation = Installation(
            self.program, bin_dir=self.bin, conf_dir=self.conf, socket=Path(SOCKET)
        )

    def remove(self) -> list[str]:
        return remove(bin_dir=self.bin, conf_dir=self.conf)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.list.write_text(json.dumps(BRIDGE))
    made.list.chmod(0o600)
    return made


def test_installed_whole_and_removed_without_a_trace(host: Host) -> None:
    assert host.installation.install()
    assert not host.installation.install()
    assert types(host.list.read_text()) == ["bridge", "portmap", "kmesh-cni"]
    assert host.list.stat().st_mode & 0o777 == 0o600
    assert (host.bin / "kmesh-cni").stat().st_mode & 0o777 == 0o755
    assert len(host.remove()) == 2
    assert json.loads(host.list.read_text()) == BRIDGE
    assert [entry.name for entry in host.conf.iterdir()] == ["10-net.conflist"]
    assert list(host.bin.iterdir()) == []
    assert host.remove() == []


def test_single_plugin_becomes_a_list_and_comes_back(host: Host) -> None:
    host.list.unlink()
    single = host.conf / "10-net.conf"
    single.write_text('{"cniVersion": "0.2.0", "name": "net", "type": "bridge", "mtu": 1400}')
    before = single.read_text()
    host.installation.install()
    assert chosen(entry.name for entry in host.conf.iterdir()) == "10-net.conflist"
    made = json.loads(host.list.read_text())
    assert (made["name"], made["cniVersion"]) == ("net", "0.3.1")
    assert made["plugins"][0] == {"type": "bridge", "mtu": 1400}
    host.remove()
    assert single.read_text() == before
    assert not host.list.exists()


def test_put_back_when_another_tool_rewrites_it(host: Host) -> None:
    host.installation.keep()
    try:
        until(lambda: "kmesh-cni" in host.list.read_text(), "not installed")
        host.list.write_text(json.dumps(BRIDGE))
        until(lambda: "kmesh-cni" in host.list.read_text(), "not put back")
        (host.bin / "kmesh-cni").unlink()
        until((host.bin / "kmesh-cni").is_file, "the binary was not put back")
        until(lambda: host.installation.trouble == "", "it is fine again")
    finally:
        host.installation.stop()
    assert not any(thread.name == "cni-install" for thread in threading.enumerate())


def test_waits_for_the_networks_own_plugin(host: Host) -> None:
    text = host.list.read_text()
    host.list.unlink()
    with pytest.raises(KmeshError, match="no CNI configuration"):
        host.installation.install()
    host.installation.keep()
    try:
        host.list.write_text(text)
        until(lambda: host.list.exists() and "kmesh-cni" in host.list.read_text(), "not installed")
    finally:
        host.installation.stop()


def test_reader_never_finds_half_a_file(host: Host) -> None:
    """A runtime that reads at any moment gets a configuration."""
    stop = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                json.loads(host.list.read_text())
            except (OSError, ValueError) as error:
                faults.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        host.installation.install()
        host.remove()
    stop.set()
    reader.join()
    assert faults == []
