# SPDX-License-Identifier: Apache-2.0
"""Following objects through everything that an API server may do to a watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from runtime.cluster.api import ApiError
from runtime.cluster.follow import Changed, Listed, Trouble, follow

PATH = "/api/v1/pods"


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def event(kind: str, about: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": about}


class Server:
    """Plays a script: one entry for each request, a result or an error to raise."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[dict[str, Any]] = []

    def _next(self, path: str, query: dict[str, Any]) -> Any:
        self.asked.append({"path": path, **query})
        if not self.script:
            raise ApiError("the script is over")
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def get(self, path: str, **query: Any) -> Any:
        return self._next(path, query)

    def events(self, path: str, **query: Any) -> Iterator[Any]:
        for each in self._next(path, query):
            if isinstance(each, Exception):
                raise each
            yield each

    def _no(self, *_: Any, **__: Any) -> Any:
        raise AssertionError

    patch = post = delete = _no


def listing(version: int, *objects: dict[str, Any], following: str = "") -> dict[str, Any]:
    return {
        "items": list(objects),
        "metadata": {"resourceVersion": str(version), "continue": following},
    }


def took(server: Server, count: int, wait: Callable[[float], bool] = lambda _: False) -> list[Any]:
    return list(islice(follow(server, PATH, wait=wait, fieldSelector="x"), count))


def names(event: Any) -> list[str]:
    assert isinstance(event, Listed)
    return [one["metadata"]["name"] for one in event.objects]


def test_list_comes_first_then_changes_from_its_version() -> None:
    server = Server(
        listing(7, pod("a", 3)), [event("ADDED", pod("b", 8)), event("DELETED", pod("a", 9))]
    )
    first, added, gone = took(server, 3)
    assert names(first) == ["a"]
    assert added == Changed(pod("b", 8))
    assert gone == Changed(pod("a", 9), gone=True)
    assert server.asked[1]["resourceVersion"] == "7"
    assert {each["fieldSelector"] for each in server.asked} == {"x"}


def test_long_list_is_read_page_by_page() -> None:
    server = Server(listing(1, pod("a", 1), following="more"), listing(5, pod("b", 2)))
    assert names(took(server, 1)[0]) == ["a", "b"]
    assert server.asked[1]["continue"] == "more"


def test_watch_that_ends_is_taken_up_at_the_last_version_seen() -> None:
    server = Server(listing(7), [event("ADDED", pod("a", 8))], [event("ADDED", pod("b", 9))])
    assert [type(each) for each in took(server, 3)] == [Listed, Changed, Changed]
    assert server.asked[2]["resourceVersion"] == "8"


def test_bookmark_moves_the_version_and_is_no_change() -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "100"}})
    server = Server(listing(7), [bookmark], [event("ADDED", pod("a", 101))])
    assert [type(each) for each in took(server, 2)] == [Listed, Changed]
    assert server.asked[2]["resourceVersion"] == "100"


def test_forgotten_version_in_a_watch_lists_again() -> None:
    gone = event("ERROR", {"code": 410, "message": "too old resource version"})
    server = Server(listing(7, pod("a", 1)), [gone], listing(20, pod("b", 2)))
    first, second = took(server, 2)
    assert (names(first), names(second)) == (["a"], ["b"])


def test_forgotten_version_refused_at_once_lists_again() -> None:
    server = Server(listing(7), ApiError("gone", status=410), listing(20, pod("b", 2)))
    assert names(took(server, 2)[1]) == ["b"]


def test_broken_connection_resumes_without_listing() -> None:
    broken = ApiError("connection reset")
    server = Server(
        listing(7), [event("ADDED", pod("a", 8)), broken], [event("ADDED", pod("b", 9))]
    )
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    seen = took(server, 4, wait)
    assert [type(each) for each in seen] == [Listed, Changed, Trouble, Changed]
    assert server.asked[2]["resourceVersion"] == "8"
    assert any(0.2 <= each <= 0.5 for each in waits), "it must wait before it asks again"


@pytest.mark.parametrize(
    "odd", ["no page", [ValueError("no JSON")], [event("ERROR", {"code": "x"})]]
)
def test_what_nobody_thought_of_is_told_and_followed_on(odd: Any) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    first = [] if isinstance(odd, str) else [listing(7)]
    server = Server(*first, odd, listing(9, pod("a", 8)))
    seen = took(server, len(first) + 2, wait)
    assert isinstance(seen[-2], Trouble)
    assert f"{PATH}: cannot be followed (" in str(seen[-2].error)
    assert names(seen[-1]) == ["a"], "what was missed is listed"
    assert any(0.2 <= each <= 0.5 for each in waits), "it must wait before it asks again"


def test_page_that_expired_begins_the_list_anew() -> None:
    server = Server(
        listing(1, pod("a", 1), following="more"),
        ApiError("expired", status=410),
        listing(9, pod("b", 2)),
    )
    assert names(took(server, 1)[0]) == ["b"]
    assert "continue" not in server.asked[2]


def test_stops_when_told() -> None:
    assert took(Server(listing(7)), 5, wait=lambda _: True) == []
