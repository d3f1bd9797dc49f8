# SPDX-License-Identifier: Apache-2.0
"""This host's addresses, as iproute2 tells them too."""

from __future__ import annotations

import json
import socket
import subprocess
from ipaddress import ip_address

import pytest

from runtime.kernel.addresses import AddressesError, own_addresses


def test_they_are_those_that_ip_lists() -> None:
    listed = json.loads(subprocess.run(
        ["ip", "-json", "address"], capture_output=True, check=True, text=True
    ).stdout)  # fmt: skip
    wanted = {
        ip_address(address["local"])
        for link in listed
        if "LOOPBACK" not in link["flags"]
        for address in link["addr_info"]
        if address["scope"] in ("global", "site")
    }
    assert own_addresses() == wanted


def test_that_they_cannot_be_had_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.AF_NETLINK", socket.AF_INET)
    with pytest.raises(AddressesError, match="cannot be listed"):
        own_addresses()
