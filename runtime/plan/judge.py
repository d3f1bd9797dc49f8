# SPDX-License-Identifier: Apache-2.0
"""One route: why it cannot run in the kernel, if so; and what it is recognised by if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from runtime.model.http import (
    Action,
    DirectResponse,
    Forward,
    HashKind,
    HttpPort,
    PathKind,
    PathMatch,
    Rbac,
    Redirect,
    Route,
    RouteMatch,
    Step,
)
from runtime.plan.ability import Ability, Feature
from runtime.plan.clusters import ClusterJudge
from runtime.tables.http_authorization import BeyondError
from runtime.tables.http_cases import check_ruling
from runtime.tables.http_clients import asks_identity, rulings
from runtime.tables.http_conditions import Name, recognised
from runtime.tables.http_effects import ordered_effects
from runtime.tables.http_texts import why_no_body, why_no_redirect

_ANY_PATH = PathMatch(PathKind.PREFIX, "")


class Slots:
    """Names of headers and query parameters that a port's routes ask for; so many and no more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[Name] = set()

    def header(self, name: str) -> bool:
        """Whether a header is among them, or still fits."""
        return self._take((False, name))

    def parameter(self, name: str) -> bool:
        """The same of a query parameter."""
        return self._take((True, name))

    def _take(self, name: Name) -> bool:
        if name not in self._names and len(self._names) >= self._most:
            return False
        self._names.add(name)
        return True


class RouteJudge:
    """Judges the routes of one port, in their order.

    Args:
        port: its filters hold for routes that say nothing else.
        clusters: what is known of clusters.
        ability: what the path can do.
        always: reasons that hold for every route of the port.
    """

    def __init__(
        self,
        port: HttpPort,
        *,
        clusters: ClusterJudge,
        ability: Ability,
        always: tuple[str, ...] = (),
    ) -> None:
        self._port = port
        self._always = always
        self._clusters = clusters
        self._ability = ability
        self._names = Slots(ability.limits.names)

    def judge(self, route: Route) -> tuple[Route, RouteMatch, tuple[str, ...]]:
        """A route with the rules of whom it leads to, what it is recognised by, and why it cannot run in the kernel."""
        match, over = self._recognise(route.match)
        reasons = [*route.beyond, *self._always, *over]
        guards, differ = self._guards(route.action)
        route = replace(route, guards=guards) if guards else route
        reasons += self._effects(route)
        reasons += self._action(route.action)
        return route, match, tuple(dict.fromkeys((*reasons, *differ)))

    def _guards(self, action: Action) -> tuple[tuple[Rbac, ...], tuple[str, ...]]:
        """The rules that guard all endpoints of an action, and why there are none, where they differ."""
        weighted = action.clusters if isinstance(action, Forward) else ()
        found = {self._clusters.guards(each.name) for each in weighted if each.weight}
        if len(found) > 1:
            return (), ("authorization policies: they differ among the clusters of the route",)
        return (found.pop() if found else ()), ()

    def _action(self, action: Action) -> Iterator[str]:
        match action:
            case Forward():
                return self._forward(action)
            case Redirect():
                return self._redirect(action)
            case DirectResponse():
                return self._direct(action)

    def _recognise(self, match: RouteMatch) -> tuple[RouteMatch, list[str]]:
        """A match without what does not fit: it takes more requests then, never fewer."""
        why = self._ability.cannot_match(match)
        if why:
            return RouteMatch(_ANY_PATH), [why]
        match, unknown = recognised(match)
        headers = tuple(h for h in match.headers if h.name[:1] == ":" or self._names.header(h.name))
        query = tuple(q for q in match.query if self._names.parameter(q.name))
        over = list(unknown)
        if len(headers) < len(match.headers):
            over.append(f"match.headers: {self._too_many}")
        if len(query) < len(match.query):
            over.append(f"match.query_parameters: {self._too_many}")
        return (replace(match, headers=headers, query=query) if over else match), over

    @property
    def _too_many(self) -> str:
        most = self._ability.limits.names
        return f"more than {most} names of headers and query parameters on this port"

    def _lacks(self, feature: Feature) -> Iterator[str]:
        if feature in self._ability.lacks:
            yield f"{feature}: {self._ability.lacks[feature]}"

    def _effects(self, route: Route) -> Iterator[str]:
        """What the filters of the port do to requests on this route."""
        found = ordered_effects(route, self._port)
        abort, limit, rbac = found.abort, found.limit, found.rules
        if found.beyond:
            yield found.beyond
        if abort is not None:
            yield from self._lacks(Feature.ABORT)
            for header in abort.headers:
                if header.name[:1] != ":" and not self._names.header(header.name):
                    yield f"fault.headers: {self._too_many}"
        if limit is not None:
            yield from self._lacks(Feature.RATE_LIMIT)
        if rbac:
            yield from self._lacks(Feature.RBAC)
            acts = (abort is not None, limit is not None)
            yield from self._authorization(rbac, found.steps, acts=acts)

    def _authorization(
        self, rules: tuple[Rbac, ...], steps: tuple[Step, ...], *, acts: tuple[bool, bool]
    ) -> Iterator[str]:
        """Why what the rules say cannot be told here; `acts`: there is a fault, there is a rate limit."""
        before = steps[: steps.index(Step.RBAC)]
        acts_before = any(
            step in before and acting
            for step, acting in zip((Step.FAULT, Step.RATE_LIMIT), acts, strict=True)
        )
        try:
            for one in rulings(rules, self._port):
                if one.by_client:
                    check_ruling(one.ruling, acts_before=acts_before)
                    if asks_identity(one.ruling):
                        yield from self._lacks(Feature.IDENTITY)
        except BeyondError as error:
            yield str(error)

    def _forward(self, action: Forward) -> Iterator[str]:
        targets = [each for each in action.clusters if each.weight]
        if len(action.clusters) > self._ability.limits.clusters:
            yield f"weighted_clusters: more than {self._ability.limits.clusters}"
        for each in targets:
            yield from self._clusters.reasons(each.name)
        if len(action.hash_policies) > self._ability.limits.hashes:
            yield f"hash_policy: more than {self._ability.limits.hashes}"
        if action.clusters and not targets:
            yield "weighted_clusters: no weight"
        for policy in action.hash_policies:
            yield from self._lacks(Feature.HASH)
            if policy.kind is HashKind.COOKIE and policy.ttl is not None:
                yield f"hash_policy.cookie: {policy.name} is to be made where it is missing (ttl)"
            if policy.kind is HashKind.HEADER and policy.name[:1] != ":":
                taken = self._names.header(policy.name)
            elif policy.kind is HashKind.COOKIE:
                taken = self._names.header("cookie")
            else:
                taken = policy.kind is not HashKind.QUERY or self._names.parameter(policy.name)
            if not taken:
                yield f"hash_policy: {policy.name} is one name too many on this port"

    def _redirect(self, action: Redirect) -> Iterator[str]:
        yield from self._lacks(Feature.REDIRECT)
        why = why_no_redirect(action)
        if why:
            yield why

    def _direct(self, action: DirectResponse) -> Iterator[str]:
        yield from self._lacks(Feature.DIRECT_RESPONSE)
        if len(action.body) > self._ability.limits.body:
            most = self._ability.limits.body
            yield f"direct_response.body: {len(action.body)} bytes, more than {most}"
        elif why := why_no_body(action.status, action.body):
            yield why
