# SPDX-License-Identifier: Apache-2.0
"""Addresses as people type them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from runtime.control.question import Question, parse_question
from runtime.errors import KmeshError


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("10.96.0.10:80", "10.96.0.10", 80),
        (" 10.96.0.10 ", "10.96.0.10", None),
        ("[fd00::1]:65535", "fd00::1", 65535),
        ("[FD00::1]", "fd00::1", None),
        ("fd00::1:80", "fd00::1:80", None),
        ("::ffff:10.96.0.10", "10.96.0.10", None),
        ("[::ffff:10.96.0.10]:80", "10.96.0.10", 80),
    ],
)
def test_what_can_be_asked(text: str, address: str, port: int | None) -> None:
    assert parse_question(text) == Question(ip_address(address), port)


def test_a_protocol_may_be_written_in_any_case() -> None:
    assert parse_question("10.0.0.1", protocol="udp").protocol == "UDP"
    with pytest.raises(KmeshError, match="no protocol 'sctp'"):
        parse_question("10.0.0.1", protocol="sctp")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("web", "'web' is no IP address"),
        ("web.shop:80", "'web.shop:80' is no IP address"),
        ("10.96.0.10:0", "'0' is no port from 1 to 65535"),
        ("10.96.0.10:65536", "'65536' is no port"),
        ("10.96.0.10:", "'' is no port"),
        ("10.96.0.10:http", "'http' is no port"),
        ("10.96.0.10:٣", "is no port"),
        ("10.96.0.999:80", "is no IP address"),
        ("[fd00::1:80", "is no IP address"),
        ("[fd00::1]80", "is no IP address"),
        ("fe80::1%eth0", "a service has no zone"),
        ("", "is no IP address"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(text: str, complaint: str) -> None:
    with pytest.raises(KmeshError, match=complaint) as caught:
        parse_question(text)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
