# SPDX-License-Identifier: Apache-2.0
"""Short names of services are hosts where one service alone can be meant."""

from __future__ import annotations

from runtime.model.http import VirtualHost
from runtime.model.mesh import Service
from runtime.plan.ability import Ability
from runtime.plan.planned import host_for
from runtime.plan.planner import make_plan
from tests.plan.http_model import picture, route


def service(name: str, namespace: str, hostname: str = "") -> Service:
    full = hostname or f"{name}.{namespace}.svc.cluster.local"
    return Service(name=name, namespace=namespace, hostname=full)


def host_of(asked: str, *services: Service, more: tuple[str, ...] = ()) -> str:
    """The virtual host that a request goes to, on a port where all of them are."""
    hosts = [VirtualHost(each.key, (each.hostname, *more), (route(),)) for each in services]
    anything = VirtualHost("any", ("*",), (route(),))
    http = picture(table={"virtual_hosts": (*hosts, anything)})
    known = {each.key: each for each in services}
    plan = make_plan(http, ability=Ability(), services=known)
    found = host_for(plan.ports[None, 80].hosts, asked)
    assert found is not None
    return found.name


REVIEWS = service("reviews", "shop")


def test_the_short_name_of_one_service():
    assert host_of("reviews", REVIEWS) == REVIEWS.key
    assert host_of("Reviews", REVIEWS, service("ratings", "shop")) == REVIEWS.key


def test_a_name_that_several_services_have_is_not_guessed():
    assert host_of("reviews", REVIEWS, service("reviews", "other")) == "any"


def test_a_name_that_is_there_already_stays_whose_it_is():
    assert host_of("reviews", service("web", "shop"), REVIEWS, more=()) == REVIEWS.key
    other = service("reviews", "vpn", "reviews")
    assert host_of("reviews", REVIEWS, other) == other.key


def test_only_names_within_the_cluster_are_shortened():
    assert host_of("partner", service("partner", "shop", "partner.example.com")) == "any"


def test_the_full_name_is_as_before():
    assert host_of(REVIEWS.hostname, REVIEWS, service("reviews", "other")) == REVIEWS.key
