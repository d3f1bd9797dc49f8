# SPDX-License-Identifier: Apache-2.0
"""A table that changes is compiled with what is known of those before it: the very same comes of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.http import Route, RouteTable, TextKind
from runtime.tables import http_shapes
from runtime.tables.http_conditions import Condition, Conditions, Text
from runtime.tables.http_kept import Kept
from runtime.tables.http_numbers import Place
from runtime.tables.http_routes import CompiledRoutes, compile_routes
from runtime.tables.http_shapes import GraphTooLargeError, Shapes
from runtime.tables.http_stats import route_names
from tests.plan.http_worlds import tables
from tests.plan.test_plan_many import mixed, some

FEW = 40


def fresh(made: RouteTable) -> CompiledRoutes:
    """As a process compiles it that knows of no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_shapes, "_kept", Kept(room=0))
        return compile_routes(made)


@st.composite
def edits(draw: st.DrawFn) -> RouteTable:
    """A table that has been changed here and there."""
    made = mixed(FEW, seed=draw(st.integers(0, 3)))
    hosts = [list(host.routes) for host in made.virtual_hosts]
    for _ in range(draw(st.integers(1, 6))):
        routes = draw(st.sampled_from(hosts))
        at = draw(st.integers(0, len(routes)))
        kind = draw(st.sampled_from(("insert", "replace", "remove", "swap")))
        other = _other(draw)
        if kind == "insert":
            routes[at:at] = other
        elif kind == "replace":
            routes[at : at + 1] = other
        elif kind == "remove":
            del routes[at : at + 1]
        else:
            routes[at : at + 2] = reversed(routes[at : at + 2])
    found = zip(made.virtual_hosts, hosts, strict=True)
    return replace(
        made, virtual_hosts=tuple(replace(host, routes=tuple(routes)) for host, routes in found)
    )


def _other(draw: st.DrawFn) -> list[Route]:
    """A route as the table has them, or as no table has."""
    source = random.Random(draw(st.integers(0, 50)))
    if draw(st.booleans()):
        return some(source.randrange(FEW), source)
    odd = draw(tables())
    return [one for host in odd.virtual_hosts for one in host.routes][:2]


@settings(max_examples=15, deadline=None)
@given(st.lists(edits(), min_size=1, max_size=3))
def test_what_was_compiled_before_changes_nothing(made: list[RouteTable]) -> None:
    for one in made:
        assert compile_routes(one) == fresh(one)
        assert route_names(one) == route_names(replace(one))


def test_a_change_of_one_route_makes_hardly_any_shape_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = mixed(1000)
    compile_routes(made)
    host, *others = made.virtual_hosts
    changed = list(host.routes)
    changed[100] = some(5, random.Random(1))[0]
    sizes: list[int] = []
    original = Shapes.make

    def make(self: Shapes, split: http_shapes.Split, *rest: object, **more: int) -> object:
        sizes.append(len(split))
        return original(self, split, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Shapes, "make", make)
    compile_routes(replace(made, virtual_hosts=(replace(host, routes=tuple(changed)), *others)))
    assert len(sizes) <= len(made.virtual_hosts) + 3
    monkeypatch.setattr(http_shapes, "_kept", Kept(room=0))
    compile_routes(made)
    assert len(sizes) > 50, "so many are there to be made"


def test_what_is_known_needs_the_room_that_it_took() -> None:
    asked = [Condition(Place.METHOD, Text(TextKind.EXACT, one)) for one in ("PATCH", "DELETE")]

    def of(limit: int) -> http_shapes.Shape:
        shapes = Shapes(Conditions({}))
        split = [((number,), ()) for number in shapes.numbers(asked)]
        return shapes.of(split, limit=limit)

    made = of(100)
    assert of(made.cost).cost == made.cost
    with pytest.raises(GraphTooLargeError):
        of(made.cost - 1)


def test_what_is_kept_has_a_bound_and_the_last_used_stays() -> None:
    kept: Kept[str] = Kept(room=10)
    for number in range(20):
        kept.keep(number, str(number), weight=3)
        assert kept.weight <= 10
        kept.get(number - 1)
    kept.keep("heavy", "x", weight=11)
    assert [key for key in range(20) if kept.get(key)] == [17, 18, 19]
    assert kept.get("heavy") is None
    kept.get(17)
    kept.keep(20, "20", weight=3)
    assert (kept.get(17), kept.get(18)) == ("17", None)
