# SPDX-License-Identifier: Apache-2.0
"""Rules that ask who sends a request, decided by the gate for clients in namespaces of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from runtime.kernel.gate import Gate
from runtime.kernel.netns import netns_cookie
from runtime.model.http import (
    AllOf,
    Anything,
    Condition,
    DirectResponse,
    HeaderMatch,
    HttpPort,
    Not,
    PathIs,
    PathKind,
    PathMatch,
    PrincipalIs,
    RateLimit,
    Rbac,
    RbacPolicy,
    Redirect,
    Route,
    RouteMatch,
    SourceIn,
    Step,
    TextKind,
    TextMatch,
)
from runtime.model.policy import Action, Identity
from runtime.tables.endpoints import pack_address
from runtime.tables.identities import NAMELESS, pack_tlvs
from runtime.tables.layout import SourceKey, SourceTlvs
from tests.dataplane.answer_worlds import port
from tests.dataplane.enhanced_stage import HTTP_AGENT, PORT, Stage, table, to
from tests.dataplane.world import VIP4, VIP6, Agent, World, wait_for

pytestmark = pytest.mark.root

FRONT = Identity("cluster.local", "web", "front")
TELLER = Identity("cluster.local", "bank", "teller")
WEB = PrincipalIs(TextMatch(TextKind.REGEX, ".*/ns/web/.*"))  # as Istio asks for a namespace
IS_TELLER = PrincipalIs(TextMatch(TextKind.EXACT, f"spiffe://{TELLER.principal}"))
NEAR = SourceIn(ip_network("10.244.1.0/24"))
POST = HeaderMatch(":method", TextMatch(TextKind.EXACT, "POST"))
ROUTES = table(
    to("/a", "a"),
    Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/told")), action=DirectResponse(299, b"hello")),
    Route(match=RouteMatch(PathMatch(PathKind.PREFIX, "/moved")), action=Redirect(host="new.test")),
)  # fmt: skip


def guarded(*rules: tuple[Action, Condition, Condition], **extra: Any) -> HttpPort:
    made = (
        Rbac(
            action=action,
            policies=(RbacPolicy(name=f"p{n}", permissions=(what,), principals=(who,)),),
        )
        for n, (action, what, who) in enumerate(rules)
    )
    return port(steps=(Step.RBAC,), rbac=tuple(made), **extra)


class Scene:
    """A stage, and clients of their own namespaces, addresses and identities, all of which reach `a`."""

    def __init__(self, stage: Stage, stack: ExitStack) -> None:
        self._stage, self._stack = stage, stack
        self._port = stage.serve("a")["a"]
        self._known: set[bytes] = set()

    def client(self, *addresses: str) -> Agent:
        """A client in a namespace with these addresses alone."""
        world = self._stack.enter_context(World())
        for one in addresses:
            world.add_address(one)
        world.agent(script=HTTP_AGENT)("serve", "127.0.0.1", "a", self._port)
        cookie = netns_cookie(world.netns, objects=self._stage.objects)
        with Gate(self._stage.place.socket) as gate:
            gate.add_space(cookie, world.netns)
        self._stack.callback(self._leave, cookie)
        return world.agent(self._stage.cgroup, script=HTTP_AGENT)

    def _leave(self, cookie: int) -> None:
        with Gate(self._stage.place.socket) as gate:
            gate.drop_space(cookie)

    def know(self, address: str, who: Identity | None) -> None:
        """Say who is at an address, as the daemon does."""
        key = SourceKey(pack_address(ip_address(address))).pack()
        told = self._stage.path.maps["source_tlvs"]
        if who is None:
            told.delete(key)
            self._known.discard(key)
            return
        tlvs = pack_tlvs(f"spiffe://{who.principal}") or NAMELESS
        told.update(key, SourceTlvs(tlvs).pack())
        self._known.add(key)

    def forget_all(self) -> None:
        for key in self._known:
            self._stage.path.maps["source_tlvs"].delete(key)

    def guard(self, governs: HttpPort, address: str = VIP4) -> None:
        assert not self._stage.ports.set_port(address, PORT, ROUTES, governs=governs)

    def taken(self) -> int:
        return self._stage.taken()


@pytest.fixture
def scene(stage: Stage) -> Iterator[Scene]:
    with ExitStack() as stack:
        made = Scene(stage, stack)
        stack.callback(made.forget_all)
        yield made


@pytest.fixture
def two(scene: Scene) -> tuple[Agent, Agent]:
    """A client of web, which is near, and one of the bank, which is not."""
    scene.know("10.244.1.1", FRONT)
    scene.know("10.244.2.1", TELLER)
    return scene.client("10.244.1.1/32"), scene.client("10.244.2.1/32")


def status(client: Agent, target: str, host: str = VIP4, **extra: Any) -> int:
    number = client("connect", host, PORT)
    answer = client("ask", number, target, extra)
    client("close", number)
    return int(answer[0])


def raw(client: Agent, target: str, method: str = "GET") -> str:
    request = f"{method} {target} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
    text: str = client("whole", VIP4, PORT, request, "stay")
    return text


ALLOW, DENY = Action.ALLOW, Action.DENY
EITHER = (
    # The rules, and who of the two may.
    ([(ALLOW, Anything(), WEB)], (True, False)),
    ([(ALLOW, Anything(), IS_TELLER)], (False, True)),
    ([(ALLOW, Anything(), Not(IS_TELLER))], (True, False)),
    ([(DENY, Anything(), IS_TELLER)], (True, False)),
    ([(DENY, Anything(), Not(WEB))], (True, False)),
    ([(ALLOW, Anything(), NEAR)], (True, False)),
    ([(DENY, Anything(), NEAR)], (False, True)),
    ([(DENY, POST, WEB)], (True, True)),
    ([(ALLOW, PathIs(TextMatch(TextKind.PREFIX, "/a")), AllOf((WEB, Not(NEAR))))], (False, False)),
    ([(DENY, Anything(), NEAR), (ALLOW, Anything(), IS_TELLER)], (False, True)),
    ([(DENY, POST, Anything()), (ALLOW, Anything(), WEB)], (True, False)),
)  # fmt: skip


def test_who_may_is_told_by_identity_and_address(scene: Scene, two: tuple[Agent, Agent]) -> None:
    for rules, may in EITHER:
        scene.guard(guarded(*rules))
        for client, allowed in zip(two, may, strict=True):
            assert status(client, "/a/1") == (200 if allowed else 403), rules


def test_somebody_whose_identity_has_no_room_is_refused_what_depends_on_it(scene: Scene) -> None:
    """It may be the very one that is denied."""
    scene.know("10.244.3.1", Identity("cluster.local", "bank", "x" * 250))
    client = scene.client("10.244.3.1/32")
    for rules, wanted in (
        ([(DENY, Anything(), IS_TELLER)], 403),
        ([(ALLOW, Anything(), Not(IS_TELLER))], 403),
        ([(DENY, Anything(), NEAR)], 200),
    ):
        scene.guard(guarded(*rules))
        assert status(client, "/a/1") == wanted, rules


def test_a_refusal_is_as_any_other(scene: Scene, two: tuple[Agent, Agent]) -> None:
    """Byte by byte but for the date; and whatever the route would have done."""
    web, bank = two
    scene.guard(guarded((DENY, Anything(), Anything())))
    plain = [line for line in raw(bank, "/a").split("\r\n") if not line.startswith("date")]
    assert plain[0] == "HTTP/1.1 403 Forbidden"
    assert plain[-1] == "RBAC: access denied"
    scene.guard(guarded((ALLOW, Anything(), WEB)))
    for target, allowed in (("/a", 200), ("/told", 299), ("/moved", 301), ("/nowhere", 404)):
        refused = raw(bank, target).split("\r\n")
        assert [line for line in refused if not line.startswith("date")] == plain, target
        assert status(web, target) == allowed
    assert raw(bank, "/a", "HEAD").endswith("\r\n\r\n")


def test_only_what_depends_on_the_client_is_kept_from_the_kernel(
    scene: Scene, two: tuple[Agent, Agent]
) -> None:
    web, _ = two
    number = web("connect", VIP4, PORT)

    def ask(count: int) -> None:
        for _ in range(count):
            assert web("ask", number, "/a")[0] == 200

    scene.guard(guarded((DENY, POST, WEB)))
    ask(2)

    def takes() -> bool:
        before = scene.taken()
        ask(1)
        return scene.taken() > before

    wait_for(takes, "the kernel takes a request")
    scene.guard(guarded((DENY, Anything(), IS_TELLER)))
    before = scene.taken()
    ask(5)
    assert scene.taken() == before
    web("close", number)


def test_who_is_not_known_is_nobody(scene: Scene, two: tuple[Agent, Agent]) -> None:
    """At once, on a connection that is open: it is looked up for each request."""
    web, _ = two
    scene.guard(guarded((ALLOW, Anything(), WEB)))
    number = web("connect", VIP4, PORT)
    assert web("ask", number, "/a")[0] == 200
    scene.know("10.244.1.1", None)
    assert web("ask", number, "/a")[0] == 403
    scene.guard(guarded((DENY, Anything(), Not(IS_TELLER))))
    assert web("ask", number, "/a")[0] == 403
    scene.know("10.244.1.1", TELLER)
    assert web("ask", number, "/a")[0] == 200
    web("close", number)


def test_who_becomes_known_is_known_at_once(scene: Scene) -> None:
    client = scene.client("10.244.1.1/32")
    scene.guard(guarded((DENY, Anything(), WEB)))
    assert status(client, "/a") == 200
    scene.know("10.244.1.1", FRONT)
    assert status(client, "/a") == 403


def test_who_may_be_either_of_two_may_what_both_may(scene: Scene) -> None:
    """Else a client took somebody's identity by taking its address beside its own."""
    scene.know("10.244.1.1", FRONT)
    scene.know("10.244.2.1", TELLER)
    both = scene.client("10.244.1.1/32", "10.244.2.1/32")
    for who in (WEB, IS_TELLER, Not(IS_TELLER), NEAR):
        scene.guard(guarded((ALLOW, Anything(), who)))
        assert status(both, "/a") == 403
        scene.guard(guarded((DENY, Anything(), who)))
        assert status(both, "/a") == 403
    scene.guard(guarded((ALLOW, Anything(), PrincipalIs(TextMatch(TextKind.PREFIX, "spiffe://")))))
    assert status(both, "/a") == 200
    # An address that is no workload's says nothing beside one that is.
    web = scene.client("10.244.7.7/32", "10.244.1.1/32")
    scene.guard(guarded((ALLOW, Anything(), AllOf((WEB, NEAR)))))
    assert status(web, "/a") == 200


@pytest.mark.parametrize("count", [0, 9])
def test_what_cannot_be_told_is_refused_with_the_reason(scene: Scene, count: int) -> None:
    addresses = [f"10.244.4.{n}/32" for n in range(1, count + 1)]
    client = scene.client(*addresses)
    scene.guard(guarded((DENY, Anything(), NEAR)))
    refused = raw(client, "/a")
    assert refused.startswith("HTTP/1.1 403 ")
    why = "client's addresses cannot be told" if count else "client has no address"
    assert f"x-kmesh-reason: the {why}" in refused
    # Which address it is does not matter where nobody is known by any.
    for who, found in ((Not(WEB), 200), (WEB, 403)):
        scene.guard(guarded((ALLOW, Anything(), who)))
        assert status(client, "/a") == found
    if count:  # nor are any too many for one that is a workload's
        scene.know("10.244.3.9", FRONT)
        assert status(scene.client("10.244.3.9/32", *addresses), "/a") == 200


def test_ipv6_is_asked_for_by_addresses_of_ipv6(scene: Scene) -> None:
    scene.know("fd00:244::1", FRONT)
    client = scene.client("fd00:244::1/128", "10.244.1.1/32")
    for block, may in (("fd00:244::/64", True), ("10.244.1.0/24", False), ("::/0", True)):
        scene.guard(guarded((ALLOW, Anything(), SourceIn(ip_network(block)))), VIP6)
        assert status(client, "/a", VIP6) == (200 if may else 403), block
    scene.guard(guarded((ALLOW, Anything(), WEB)), VIP6)
    assert status(client, "/a", VIP6) == 200


def test_limits_hold_for_those_who_may(scene: Scene, two: tuple[Agent, Agent]) -> None:
    """Who is refused takes no token."""
    web, bank = two
    limit = RateLimit(most=2, tokens=1, interval_ms=3_600_000)
    governs = port(
        steps=(Step.RBAC, Step.RATE_LIMIT),
        rate_limit=limit,
        rbac=guarded((ALLOW, Anything(), WEB)).rbac,
    )
    scene.guard(governs)
    assert [status(bank, "/a") for _ in range(3)] == [403, 403, 403]
    assert [status(web, "/a") for _ in range(3)] == [200, 200, 429]
