# SPDX-License-Identifier: Apache-2.0
"""What one Envoy is told, in which order, and what becomes of what it refuses: without an Envoy."""

from __future__ import annotations

from typing import Any

from runtime.source.envoy.messages import ENDPOINTS, ROUTES, read
from runtime.source.istiod.proto.discovery_pb2 import DiscoveryRequest
from runtime.waypoint.ledger import Ledger
from runtime.waypoint.stream import WARM_SECONDS, Conversation
from tests.waypoint.bookstore import CDS, EDS, LDS, RDS

OTHER = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"


class Fixed(Ledger):
    """Holds bytes that are no messages: what is in them is not for the stream to know."""

    def _adapt(self, _kind: str, _name: str, payload: bytes) -> bytes | None:
        return payload


class Envoy:
    """The other end of a conversation."""

    def __init__(self, ledger: Ledger) -> None:
        self.now = 0.0
        self.talk = Conversation(ledger, clock=lambda: self.now)
        self.names: dict[str, list[str]] = {}
        self.had: dict[str, Any] = {}

    def ask(self, kind: str, *names: str, version: str = "") -> None:
        self.names[kind] = list(names)
        request = DiscoveryRequest(type_url=kind, resource_names=names, version_info=version)
        self.talk.hear(request)

    def hear(self) -> tuple[str, list[bytes]] | None:
        """The next response, without an answer to it."""
        response = self.talk.next()
        if response is None:
            return None
        self.had[response.type_url] = response
        return response.type_url, [each.value for each in response.resources]

    def answer(self, kind: str, *, refuse: str = "", names: list[str] | None = None) -> None:
        self.names[kind] = self.names[kind] if names is None else names
        request = DiscoveryRequest(
            type_url=kind, response_nonce=self.had[kind].nonce, resource_names=self.names[kind]
        )
        if refuse:
            request.error_detail.message = refuse
        else:
            request.version_info = self.had[kind].version_info
        self.talk.hear(request)

    def take(self) -> list[tuple[str, list[bytes]]]:
        """Accept everything that comes, in order."""
        heard = []
        while (each := self.hear()) is not None:
            heard.append(each)
            self.answer(each[0])
        return heard


def picture(**kinds: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    return {{"cds": CDS, "eds": EDS, "lds": LDS, "rds": RDS}[k]: each for k, each in kinds.items()}


def started(**kinds: dict[str, bytes]) -> tuple[Ledger, Envoy]:
    ledger = Fixed()
    ledger.put(picture(**kinds))
    envoy = Envoy(ledger)
    for kind in (CDS, LDS):
        envoy.ask(kind)
    for key, kind in (("eds", EDS), ("rds", RDS)):
        if kinds.get(key):
            envoy.ask(kind, *kinds[key])
    return ledger, envoy


def test_nothing_is_said_before_the_source_has_a_whole_picture() -> None:
    ledger = Fixed()
    envoy = Envoy(ledger)
    envoy.ask(CDS)
    assert envoy.hear() is None
    ledger.put(picture(cds={"c": b"c"}))
    assert envoy.hear() == (CDS, [b"c"])


def test_clusters_come_first_and_go_last() -> None:
    ledger, envoy = started(cds={"a": b"a"}, eds={"a": b"e"}, lds={"l": b"l"}, rds={"r": b"to a"})
    first = [kind for kind, _ in envoy.take()]
    assert first == [CDS, EDS, LDS, RDS]
    envoy.ask(EDS, "a")  # a new subscription, as if nothing had been there
    ledger.put(picture(cds={"b": b"b"}, eds={"b": b"e"}, lds={"l": b"l"}, rds={"r": b"to b"}))
    heard = envoy.take()
    assert heard[0] == (CDS, [b"a", b"b"])
    assert heard[-1] == (CDS, [b"b"])
    assert (RDS, [b"to b"]) in heard
    assert envoy.hear() is None


def test_routes_wait_until_clusters_are_warm_though_not_for_ever() -> None:
    ledger, envoy = started(cds={"a": b"a"}, eds={"a": b"e"}, rds={"r": b"1"})
    envoy.take()
    ledger.put(picture(cds={"a": b"a", "b": b"b"}, eds={"a": b"e", "b": b"e"}, rds={"r": b"2"}))
    assert envoy.hear() == (CDS, [b"a", b"b"])  # and Envoy does not answer: it warms them
    assert envoy.hear() is None
    envoy.answer(EDS, names=["a", "b"])  # it asks for what it needs for that
    assert envoy.hear() == (EDS, [b"e"])
    envoy.answer(EDS)
    assert envoy.hear() is None
    assert envoy.talk.wake_after() == WARM_SECONDS
    envoy.now += WARM_SECONDS
    assert envoy.hear() == (RDS, [b"2"])


def test_endpoints_are_told_anew_when_clusters_change() -> None:
    ledger, envoy = started(cds={"a": b"1", "b": b"1"}, eds={"a": b"e", "b": b"f"})
    envoy.take()
    ledger.put(picture(cds={"a": b"2", "b": b"1"}, eds={"a": b"e", "b": b"f"}))
    assert (EDS, [b"e", b"f"]) in envoy.take()


def test_only_what_changed_is_sent_of_what_is_asked_for_by_name() -> None:
    ledger, envoy = started(rds={"r": b"1", "s": b"1"})
    envoy.take()
    ledger.put(picture(rds={"r": b"1", "s": b"2"}))
    assert envoy.take() == [(RDS, [b"2"])]
    ledger.put(picture(rds={"r": b"1", "s": b"2"}))
    assert envoy.take() == []


def test_who_asks_for_what_there_is_not_does_not_wait_for_ever() -> None:
    _, envoy = started(eds={"e": b"e"}, rds={"r": b"r"})
    envoy.ask(EDS, "gone")
    envoy.ask(RDS, "gone")
    heard = dict(envoy.take())
    assert read(ENDPOINTS, heard[EDS][0]).cluster_name == "gone"
    table = read(ROUTES, heard[RDS][0])
    assert table.virtual_hosts[0].routes[0].direct_response.status == 503


def test_what_is_not_followed_is_answered_once_with_what_is_refused() -> None:
    _, envoy = started(cds={"c": b"c"})
    envoy.ask(OTHER, "wasm")
    kind, resources = envoy.hear() or ("", [])
    assert (kind, resources) == (OTHER, [b""])
    envoy.answer(OTHER, refuse="no such type")
    assert OTHER not in dict(envoy.take())


def test_a_refused_resource_is_replaced_by_its_last_good_version() -> None:
    ledger, envoy = started(lds={"one": b"1", "two": b"1"})
    envoy.take()
    ledger.put(picture(lds={"one": b"2", "two": b"2"}))
    assert envoy.hear() == (LDS, [b"2", b"2"])
    envoy.answer(LDS, refuse="Error adding/updating listener(s) one: bad")
    assert envoy.take() == []  # Envoy has that already, and took the other
    assert ledger.refusals() == {"listener one": "Error adding/updating listener(s) one: bad"}
    again = Envoy(ledger)  # one that was started anew is not offered it either
    again.ask(LDS)
    assert again.take() == [(LDS, [b"1", b"2"])]
    ledger.put(picture(lds={"one": b"3", "two": b"2"}))
    assert ledger.refusals() == {}
    assert again.take() == [(LDS, [b"3", b"2"])]


def test_a_refused_resource_that_never_was_good_is_left_out() -> None:
    ledger, envoy = started(cds={"good": b"1", "bad": b"1"})
    assert envoy.hear() == (CDS, [b"1", b"1"])
    envoy.answer(CDS, refuse="cluster bad: no")
    assert CDS not in dict(envoy.take())
    again = Envoy(ledger)
    again.ask(CDS)
    assert again.take() == [(CDS, [b"1"])]
    assert set(ledger.refusals()) == {"cluster bad"}


def test_where_a_refusal_names_nothing_each_is_tried_by_itself() -> None:
    ledger, envoy = started(rds=dict.fromkeys("abc", b"1"))
    envoy.take()
    ledger.put(picture(rds={"a": b"2", "b": b"bad", "c": b"2"}))
    heard = []
    while (each := envoy.hear()) is not None:
        heard.append(each[1])
        envoy.answer(RDS, refuse="duplicate domain" if b"bad" in each[1] else "")
    assert heard[0] == [b"2", b"bad", b"2"]
    assert set(ledger.refusals()) == {"route table b"}
    assert envoy.talk._watches[RDS].sent == {"a": b"2", "b": b"1", "c": b"2"}
    assert ledger.sheets[RDS].nacks == 2


def test_an_answer_to_an_earlier_response_changes_nothing() -> None:
    ledger, envoy = started(lds={"l": b"1"})
    envoy.take()
    old = envoy.had[LDS].nonce
    ledger.put(picture(lds={"l": b"2"}))
    envoy.hear()
    envoy.talk.hear(DiscoveryRequest(type_url=LDS, response_nonce=old))
    assert not envoy.talk.quiet
    envoy.answer(LDS)
    assert envoy.talk.quiet


def test_another_build_of_envoy_is_offered_everything_again() -> None:
    ledger, envoy = started(cds={"c": b"1"})
    envoy.hear()
    envoy.answer(CDS, refuse="c: no")
    assert CDS not in dict(envoy.take())
    ledger.meet({"what.it.Lacked"})
    other = Envoy(ledger)
    other.ask(CDS)
    assert other.take() == [(CDS, [b"1"])]


def test_what_an_envoy_may_hold_from_before_is_not_taken_from_it() -> None:
    """A daemon that is new does not know what was good: of what is refused, nothing may look like a removal."""
    ledger = Fixed()
    ledger.put(picture(lds={"bad": b"x", "good": b"1"}, rds={"bad": b"x", "good": b"1"}))
    envoy = Envoy(ledger)
    envoy.ask(LDS, version="by the daemon before")
    envoy.ask(RDS, "bad", "good", version="by the daemon before")
    assert envoy.hear() == (LDS, [b"x", b"1"])
    envoy.answer(LDS, refuse="Error adding/updating listener(s) bad: no")
    assert envoy.hear() == (RDS, [b"x", b"1"])
    envoy.answer(RDS, refuse="no")
    assert envoy.hear() == (RDS, [b"x"])
    envoy.answer(RDS, refuse="no")
    assert envoy.take() == [(RDS, [b"1"])]
    assert set(ledger.refusals()) == {"listener bad", "route table bad"}
    ledger.put(picture(lds={"bad": b"x", "good": b"2"}, rds={"bad": b"x", "good": b"1"}))
    assert envoy.hear() == (LDS, [b"x", b"2"])
    envoy.answer(LDS, refuse="Error adding/updating listener(s) bad: no")
    assert envoy.take() == []
    assert ledger.sheets[LDS].good == {"good": b"2"}


def test_a_refusal_without_a_name_takes_nothing_from_who_may_hold_it() -> None:
    ledger = Fixed()
    ledger.put(picture(cds={"a": b"1", "b": b"1"}))
    envoy = Envoy(ledger)
    envoy.ask(CDS, version="by the daemon before")
    assert envoy.hear() == (CDS, [b"1", b"1"])
    envoy.answer(CDS, refuse="cannot be read")
    assert envoy.hear() is None
    assert set(ledger.refusals()) == {"cluster a", "cluster b"}
    ledger.put(picture(cds={"a": b"2", "b": b"1"}))
    assert envoy.take() == [(CDS, [b"2", b"1"])]
    assert ledger.refusals() == {}
