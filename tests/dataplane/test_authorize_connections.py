# SPDX-License-Identifier: Apache-2.0
"""Authorization through real sockets: two network namespaces, a wire, and the program on the server's.

The client's namespace has one address for each of several workloads, and some of nobody. A kernel
without veth has both in one namespace.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from runtime.bpf.lib import lib
from runtime.kernel.apply import ApplyError
from runtime.kernel.authorize import Authorizer
from runtime.model.mesh import Workload
from runtime.model.policy import (
    Action,
    Match,
    Policy,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from runtime.source.update import Update
from runtime.tables.place import Place
from runtime.tables.policies import PolicyTables

pytestmark = pytest.mark.root

_CLONE_NEWNET = 0x40000000
_numbers = count()
_T = TypeVar("_T")

SERVER4, SERVER6 = "10.244.0.9", "fd00:244::9"
OTHER4 = "10.244.0.10"  # of a workload in the same namespace, with policies of its own
WEB4, WEB6 = "10.244.1.1", "fd00:244::1:1"  # shop/web
TELLER4, TELLER6 = "10.244.1.2", "fd00:244::1:2"  # bank/teller
NOBODY4, NOBODY6 = "10.244.2.1", "fd00:244::2:1"  # outside of the mesh
SERVERS = (SERVER4, OTHER4, SERVER6)
CLIENTS = (WEB4, TELLER4, NOBODY4, WEB6, TELLER6, NOBODY6)
PORT = 8080


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def inside(netns: Path, action: Callable[[], _T]) -> _T:
    """Do something in a namespace; sockets made there stay there."""

    def work() -> _T:
        handle = os.open(netns, os.O_RDONLY)
        try:
            assert ctypes.CDLL(None).setns(handle, _CLONE_NEWNET) == 0
        finally:
            os.close(handle)
        return action()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(work).result()


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Wire:
    """Two namespaces with a wire between them, and an authorizer with its tables."""

    def __init__(self, objects: Path, *, sizes: dict[str, int] | None = None) -> None:
        self._objects = objects
        self._sizes = sizes
        name = f"kmesh-test-{os.getpid()}-{next(_numbers)}"
        self.names = (f"{name}-s", f"{name}-c")
        self.server, self.client = (Path("/run/netns") / one for one in self.names)
        self.pins = Path("/sys/fs/bpf") / name
        self._stack = ExitStack()
        self.tables = PolicyTables(place=Place(node="here"))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in self.names:
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "del", name)
            self._connect()
            self.authorizer = Authorizer.open(self._objects, pins=self.pins, sizes=self._sizes)
            stack.callback(lambda: self.authorizer.destroy())  # noqa: PLW0108 - it may be replaced
            self.authorizer.guard_netns(self.server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        assert not self.pins.exists()

    def _connect(self) -> None:
        server, client = self.names
        try:
            _ip(
                "-n", server, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", client
            )
        except subprocess.CalledProcessError:  # no veth in this kernel: one namespace, no wire
            self.client = self.server
            self._add(server, "lo", *SERVERS, *CLIENTS)
            return
        self._add(server, "eth0", *SERVERS)
        self._add(client, "eth0", *CLIENTS)

    def _add(self, name: str, device: str, *addresses: str) -> None:
        for address in addresses:
            extra = ["nodad"] if ":" in address else []
            length = 64 if ":" in address else 16
            _ip("-n", name, "address", "add", f"{address}/{length}", "dev", device, *extra)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", device, "up")

    def listen(self, address: str, port: int = PORT) -> socket.socket:
        def make() -> socket.socket:
            listener = socket.socket(family(address))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(1024)
            return listener

        return self._stack.enter_context(inside(self.server, make))

    def serve(self, address: str, port: int = PORT) -> None:
        """Take connections as they come, up to the end."""
        listener = self.listen(address, port)
        thread = threading.Thread(target=_take_all, args=(listener,), daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        # Closing alone would leave the thread in accept() for ever.
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def connect(self, source: str, address: str = SERVER4, port: int = PORT) -> socket.socket:
        def make() -> socket.socket:
            client = socket.socket(family(address))
            client.settimeout(10)
            client.bind((source, 0))
            try:
                client.connect((address, port))
            except BaseException:
                client.close()
                raise
            return client

        return inside(self.client, make)

    def passes(self, source: str, address: str = SERVER4, port: int = PORT) -> bool:
        try:
            self.connect(source, address, port).close()
        except ConnectionRefusedError:
            return False
        return True

    def take(self, **changes: Any) -> None:
        self.authorizer.apply(self.tables.apply(Update(**changes)))

    def hits(self) -> dict[str, int]:
        """By the policy's key; "" for "no allow policy matches"."""
        found = {}
        for hit in self.authorizer.hits():
            keys = self.tables.set_names()[hit.set]
            if hit.times:
                found[keys[hit.policy - 1] if hit.policy else ""] = hit.times
        return found


def _take_all(listener: socket.socket) -> None:
    with suppress(OSError):  # closed
        while True:
            listener.accept()[0].close()


def pod(uid: str, *addresses: str, namespace: str, account: str, node: str = "there") -> Workload:
    return Workload(
        uid=uid,
        name=uid,
        namespace=namespace,
        addresses=tuple(map(ip_address, addresses)),
        service_account=account,
        node=node,
    )


WORKLOADS = (
    pod("server", SERVER4, SERVER6, namespace="shop", account="db", node="here"),
    pod("other", OTHER4, namespace="bank", account="db", node="here"),
    pod("web", WEB4, WEB6, namespace="shop", account="web"),
    pod("teller", TELLER4, TELLER6, namespace="bank", account="teller"),
)


@pytest.fixture
def wire(objects: Path) -> Iterator[Wire]:
    with Wire(objects) as made:
        made.serve(SERVER4)
        made.serve(SERVER6)
        made.serve(OTHER4)
        made.serve(SERVER4, 81)
        made.take(workloads=WORKLOADS, complete=True)
        yield made


def policy(*matches: Match, name: str = "p", **fields: Any) -> Policy:
    given = {"scope": PolicyScope.NAMESPACE, "namespace": "shop"} | fields
    return Policy(name=name, groups=((matches,),), **given)


def exact(text: str) -> tuple[StringMatch, ...]:
    return (StringMatch(StringKind.EXACT, text),)


WEB = "cluster.local/ns/shop/sa/web"
BLOCK4, BLOCK6 = ip_network("10.244.2.0/24"), ip_network("fd00:244::2:0/112")


@pytest.mark.parametrize(
    ("match", "allowed"),
    [
        (Match(namespaces=exact("shop")), "web"),
        (Match(not_namespaces=exact("shop")), "teller nobody"),
        (Match(principals=exact(WEB)), "web"),
        (Match(not_principals=exact(WEB)), "teller nobody"),
        (Match(principals=(StringMatch(StringKind.PRESENCE),)), "web teller"),
        (Match(principals=(StringMatch(StringKind.SUFFIX, "/sa/teller"),)), "teller"),
        (Match(namespaces=(StringMatch(StringKind.PREFIX, "ba"),)), "teller"),
        (Match(service_accounts=(ServiceAccountMatch("bank", "teller"),)), "teller"),
        (Match(not_service_accounts=(ServiceAccountMatch("bank", "teller"),)), "web nobody"),
        (Match(source_ips=(BLOCK4, BLOCK6)), "nobody"),
        (Match(not_source_ips=(BLOCK4, BLOCK6)), "web teller"),
        (Match(destination_ports=(PORT,), namespaces=exact("bank")), "teller"),
        (Match(destination_ports=(81,)), ""),
        (Match(not_destination_ports=(81,)), "web teller nobody"),
        (Match(destination_ips=(ip_network("10.244.0.9"), ip_network("fd00:244::/64"))), "web teller nobody"),
        (Match(destination_ips=(ip_network("10.244.0.10"),)), ""),
    ],
)  # fmt: skip
def test_each_condition_allows_and_denies(wire: Wire, match: Match, allowed: str) -> None:
    sources = {"web": (WEB4, WEB6), "teller": (TELLER4, TELLER6), "nobody": (NOBODY4, NOBODY6)}
    for action in Action:
        wire.take(policies=(policy(match, action=action),))
        for name, (four, six) in sources.items():
            wanted = (name in allowed.split()) == (action is Action.ALLOW)
            assert wire.passes(four, SERVER4) == wanted, (name, action)
            assert wire.passes(six, SERVER6) == wanted, (name, action)
            assert wire.passes(four, OTHER4)


def test_a_refused_connection_reaches_no_application(wire: Wire) -> None:
    wire.take(policies=(policy(Match(namespaces=exact("shop"))),))
    listener = wire.listen(SERVER4, 9000)
    listener.settimeout(0.5)
    with pytest.raises(ConnectionRefusedError):
        wire.connect(NOBODY4, port=9000)
    with pytest.raises(TimeoutError):
        listener.accept()
    with wire.connect(WEB4, port=9000), listener.accept()[0]:
        pass


def test_deny_wins_and_every_hit_is_counted(wire: Wire) -> None:
    allow = policy(Match(namespaces=exact("shop")), Match(namespaces=exact("bank")), name="allow")
    deny = policy(Match(principals=exact(WEB)), name="deny", action=Action.DENY)
    dry = policy(Match(), Match(destination_ports=(PORT,)), name="dry", action=Action.DENY, dry_run=True)  # fmt: skip
    wire.take(policies=(allow, deny, dry))
    assert [wire.passes(one) for one in (WEB4, TELLER4, NOBODY4)] == [False, True, False]
    assert wire.hits() == {"shop/deny": 1, "shop/allow": 1, "": 1, "shop/dry": 3}
    wire.take(removed_policies=("shop/allow", "shop/deny"))
    assert all(wire.passes(one) for one in (WEB4, TELLER4, NOBODY4))
    assert wire.hits() == {"shop/dry": 3}  # of the new set


def test_hundreds_of_policies(wire: Wire) -> None:
    found = [
        policy(Match(source_ips=(ip_network(f"10.{n}.0.0/16"),)), name=f"deny{n:03}", action=Action.DENY)
        for n in range(244)
    ] + [
        policy(Match(namespaces=exact(f"ns{n}"), destination_ports=(n + 1,)), name=f"allow{n:03}")
        for n in range(300)
    ]  # fmt: skip
    wire.take(policies=(*found, policy(Match(principals=exact(WEB)), name="last")))
    assert [wire.passes(one) for one in (WEB4, TELLER4, NOBODY4)] == [True, False, False]
    assert [wire.passes(one, SERVER6) for one in (WEB6, TELLER6, NOBODY6)] == [True, False, False]
    assert not wire.tables.problems


def test_established_connections_are_never_judged(wire: Wire) -> None:
    """The program's own count of runs, from the kernel: none for a thousand round trips."""
    wire.take(policies=(policy(Match(namespaces=exact("shop"))),))
    listener = wire.listen(SERVER4, 9001)
    statistics = enable_statistics()
    try:
        with wire.connect(WEB4, port=9001) as client, listener.accept()[0] as server:
            before = wire.authorizer.program.runs
            for _ in range(1000):
                client.sendall(b"x")
                assert server.recv(1) == b"x"
                server.sendall(b"y")
                assert client.recv(1) == b"y"
            assert wire.authorizer.program.runs == before
            wire.take(policies=(policy(Match(namespaces=exact("bank"))),))
            client.sendall(b"z")
            assert server.recv(1) == b"z"
            assert not wire.passes(WEB4)
        assert wire.authorizer.program.runs > before
    finally:
        os.close(statistics)


def enable_statistics() -> int:
    handle = int(lib().bpf_enable_stats(0))  # of run times; on until the descriptor is closed
    assert handle >= 0
    return handle


def test_an_update_is_never_half_visible(wire: Wire) -> None:
    """The policies change all the time; web may always come in, and nobody never."""
    stop = threading.Event()
    wrong: list[str] = []
    done = {WEB4: 0, NOBODY4: 0}

    def hammer(source: str, *, wanted: bool) -> None:
        while not stop.is_set():
            try:
                if wire.passes(source) != wanted:
                    wrong.append(source)
            except OSError as error:
                wrong.append(f"{source}: {error}")
            done[source] += 1

    wire.take(policies=(policy(Match(principals=exact(WEB))),))
    threads = [
        threading.Thread(target=hammer, args=(WEB4,), kwargs={"wanted": True}),
        threading.Thread(target=hammer, args=(NOBODY4,), kwargs={"wanted": False}),
    ]
    for one in threads:
        one.start()
    end = time.monotonic() + 4
    variants = (
        Match(principals=exact(WEB)),
        Match(namespaces=exact("shop"), not_source_ips=(BLOCK4,)),
        Match(service_accounts=(ServiceAccountMatch("shop", "web"),), destination_ports=(PORT,)),
        Match(source_ips=(ip_network(f"{WEB4}/32"),)),
    )
    changes = 0
    while time.monotonic() < end:
        changes += 1
        more = policy(Match(destination_ports=(changes % 50 + 100,)), name="more")
        wire.take(policies=(policy(variants[changes % len(variants)]), more))
    stop.set()
    for one in threads:
        one.join()
    assert not wrong
    assert changes > 20
    assert min(done.values()) > 20


def test_a_restarted_process_adopts_what_is_pinned(wire: Wire, objects: Path) -> None:
    wire.take(policies=(policy(Match(principals=exact(WEB))),))
    wire.authorizer.close()
    assert [wire.passes(one) for one in (WEB4, TELLER4)] == [True, False]
    wire.authorizer = Authorizer.open(objects, pins=wire.pins)
    assert len(wire.authorizer.namespaces) == 1
    wire.tables = PolicyTables(place=Place(node="here"), existing=wire.authorizer.contents())
    bank = policy(Match(namespaces=exact("bank")))
    wire.take(workloads=WORKLOADS, policies=(bank,), complete=True)
    assert [wire.passes(one) for one in (WEB4, TELLER4)] == [False, True]
    wire.take(removed_policies=("shop/p",))
    assert not any(wire.authorizer.contents().values())
    assert all(wire.passes(one) for one in CLIENTS[:3])


def test_a_workload_that_moves_in_is_known_at_once(wire: Wire) -> None:
    wire.take(policies=(policy(Match(namespaces=exact("bank"))),))
    assert not wire.passes(NOBODY4)
    wire.take(workloads=(pod("new", NOBODY4, namespace="bank", account="x"),))
    assert wire.passes(NOBODY4)
    wire.take(removed_workloads=("new",))
    assert not wire.passes(NOBODY4)


def test_a_destination_whose_policies_do_not_fit_the_maps_is_closed(objects: Path) -> None:
    """A destination that is guarded already keeps the policies that it had."""
    fits = policy(Match(destination_ports=(PORT, 81)))
    with Wire(objects, sizes={"policy_rows": 5}) as wire:
        wire.serve(SERVER4)
        wire.serve(OTHER4)
        wire.take(workloads=WORKLOADS, policies=(fits,))
        assert wire.passes(WEB4)
        too_many = policy(Match(destination_ports=tuple(range(1, 9))), name="big", namespace="bank")
        with pytest.raises(ApplyError, match=r"big.*policy_rows"):
            wire.take(policies=(too_many,))
        assert not wire.passes(WEB4, OTHER4)
        assert wire.passes(WEB4)
        with pytest.raises(ApplyError):
            wire.take(policies=(policy(Match(destination_ports=tuple(range(2, 99)))),))
        assert wire.passes(WEB4)


def test_udp_is_not_judged(wire: Wire) -> None:
    wire.take(policies=(policy(Match(principals=exact(WEB))),))

    def bound(address: str, port: int) -> socket.socket:
        made = socket.socket(family(address), socket.SOCK_DGRAM)
        made.settimeout(5)
        made.bind((address, port))
        return made

    with (
        inside(wire.server, lambda: bound(SERVER4, 5300)) as server,
        inside(wire.client, lambda: bound(NOBODY4, 0)) as client,
    ):
        client.sendto(b"x", (SERVER4, 5300))
        assert server.recv(10) == b"x"


def test_a_namespace_that_is_gone_is_forgotten(objects: Path) -> None:
    with Wire(objects) as made:
        assert len(made.authorizer.namespaces) == 1
        _ip("netns", "del", made.names[0])
        _ip("netns", "add", made.names[0])
        end = time.monotonic() + 30
        while made.authorizer.namespaces and time.monotonic() < end:
            time.sleep(0.05)
        assert made.authorizer.namespaces == []
        made.authorizer.guard_netns(made.server)
        assert len(made.authorizer.namespaces) == 1
        made.authorizer.release_netns(made.server)
        assert made.authorizer.namespaces == []


def test_the_program_stays_far_from_the_verifiers_limit(wire: Wire) -> None:
    assert wire.authorizer.program.verified < 200_000
