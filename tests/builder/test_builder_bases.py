# SPDX-License-Identifier: Apache-2.0
"""Where a base comes from: what is decided, in which time, and what is refused."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.bases import DEBIAN, OPENEULER, Kind, Wish, choose
from builder.plan import make_plan
from builder.recipes import recipe, recipes
from builder.registry import answers, registry_of
from builder.rootfs import osrelease
from runtime.errors import KmeshError

DEBIAN_RELEASE = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
OPENEULER_RELEASE = b'NAME="openEuler"\nID="openEuler"\nVERSION_ID="24.03"\n'


def test_a_registry_that_answers_is_pulled_from_by_digest() -> None:
    choice = choose(DEBIAN, Wish(), reachable=True)
    assert choice.kind is Kind.IMAGE
    assert "@sha256:" in choice.source


@pytest.mark.parametrize("present", [True, False])
def test_an_unpinned_base_is_only_pulled_where_the_user_names_it(*, present: bool) -> None:
    assert not OPENEULER.pinned
    choice = choose(OPENEULER, Wish(), reachable=True, present=present)
    assert choice.substitute
    assert "no digest of openeuler/openeuler:24.03-lts is known to pull" in choice.reason
    named = choose(OPENEULER, Wish(OPENEULER.reference), reachable=True, present=present)
    assert (named.kind, named.source) == (Kind.IMAGE, OPENEULER.reference)


def test_without_a_registry_debian_is_made_from_packages() -> None:
    choice = choose(DEBIAN, Wish(), reachable=False)
    assert choice.kind is Kind.DEBIAN_ROOT
    assert not choice.substitute


def test_without_a_registry_openeuler_is_substituted_and_says_so() -> None:
    choice = choose(OPENEULER, Wish(), reachable=False)
    assert choice.kind is Kind.DEBIAN_ROOT
    assert choice.substitute
    assert "NOT openEuler 24.03" in choice.reason
    assert choice.os_id == "debian"


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        (Wish(archive=Path("root.tar")), Kind.OPENEULER_ARCHIVE),
        (Wish(repository="file:///repo"), Kind.OPENEULER_REPOSITORY),
    ],
)
def test_what_the_user_gives_is_used(wish: Wish, kind: Kind) -> None:
    for reachable in (True, False):
        choice = choose(OPENEULER, wish, reachable=reachable)
        assert choice.kind is kind
        assert not choice.substitute


def test_an_image_that_the_engine_has_needs_no_registry() -> None:
    assert choose(DEBIAN, Wish("mine:1"), reachable=False, present=True).source == "mine:1"


def test_a_base_that_the_user_named_is_never_replaced() -> None:
    with pytest.raises(KmeshError, match="registry of the base mine:1 does not answer"):
        choose(DEBIAN, Wish("mine:1"), reachable=False)


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("debian:12", "registry-1.docker.io"),
        ("openeuler/openeuler:24.03-lts", "registry-1.docker.io"),
        ("docker.io/library/debian:12", "registry-1.docker.io"),
        ("ghcr.io/kmesh-net/kmesh:1", "ghcr.io"),
        ("localhost:5000/debian@sha256:00", "localhost:5000"),
        ("localhost/debian", "localhost"),
    ],
)
def test_the_registry_of_a_reference(reference: str, host: str) -> None:
    assert registry_of(reference) == host


@contextmanager
def registry(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v2/" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "answer"), [(200, True), (401, True), (404, False), (503, False)]
)
def test_a_registry_is_known_by_its_api(status: int, *, answer: bool) -> None:
    with registry(status) as host:
        assert answers(host) is answer


def test_a_registry_that_accepts_and_says_nothing_does_not_hold_the_build() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not answers(f"127.0.0.1:{server.getsockname()[1]}", seconds=0.2)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not answers(f"127.0.0.1:{port}")


def test_a_base_is_what_it_says() -> None:
    assert osrelease.check(OPENEULER_RELEASE, wanted="openEuler", what="x").version == "24.03"


def test_a_base_that_is_another_distribution_is_refused() -> None:
    with pytest.raises(KmeshError, match=r"openEuler was wanted, it is Debian GNU/Linux 12"):
        osrelease.check(DEBIAN_RELEASE, wanted="openEuler", what="base euler:1")


def test_a_base_that_is_no_root_is_refused() -> None:
    with pytest.raises(KmeshError, match="has no os-release"):
        osrelease.check(None, wanted="debian", what="base scratch")


def test_a_plan_says_what_and_why() -> None:
    plans = {
        plan.image.name: plan
        for plan in make_plan(recipes(), {}, hub="hub.test/k/", tag="1", bootstrap=True)
    }
    assert plans["generic"].reference == "hub.test/k/kmesh:1"
    assert plans["enhanced"].choice.substitute
    assert plans["enhanced"].to_json()["substitute"] is True
    assert plans["generic"].steps[0].startswith("bootstrap Debian 12")


def test_a_plan_to_pull_installs_what_the_base_lacks() -> None:
    with registry(200) as host:
        wishes = {"generic": Wish(f"{host}/debian@sha256:{'0' * 64}")}
        (plan,) = make_plan([recipe("generic")], wishes, hub="h", tag="1", bootstrap=True)
    assert plan.choice.kind is Kind.IMAGE
    assert any("python3-bpfcc" in step for step in plan.steps)


def test_there_is_no_other_image() -> None:
    with pytest.raises(KmeshError, match="no image 'waypoint'"):
        recipe("waypoint")
