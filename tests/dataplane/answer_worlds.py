# SPDX-License-Identifier: Apache-2.0
"""Random tables whose routes answer by themselves, and filters that govern them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from runtime.model.http import (
    Abort,
    AllOf,
    AnyOf,
    Anything,
    DirectResponse,
    Forward,
    HttpPort,
    Not,
    PathIs,
    Rbac,
    RbacPolicy,
    Redirect,
    RouteTable,
    Step,
    VirtualHost,
    WeightedCluster,
)
from runtime.model.policy import Action
from tests.plan.http_worlds import headers, tables, texts

STATUSES = (200, 201, 299, 302, 401, 403, 404, 418, 429, 500, 503, 599)
redirects = (
    st.builds(
        Redirect,
        status=st.sampled_from((301, 302, 303, 307, 308)),
        scheme=st.sampled_from((None, None, "https", "http", "foo")),
        host=st.sampled_from((None, None, "new.test", "new.test:99", "[fd00::2]")),
        port=st.sampled_from((None, None, 80, 443, 8443)),
        https=st.booleans(),
        strip_query=st.booleans(),
    )
    .map(lambda made: replace(made, https=made.https and made.scheme is None))
    .flatmap(
        lambda made: st.sampled_from(
            (
                made,
                replace(made, path="/x"),
                replace(made, path="/x/y?z=1"),
                replace(made, prefix="/new"),
                replace(made, prefix="/"),
                replace(made, prefix="/new/?k=v"),
            )
        )
    )
)
directs = st.builds(
    DirectResponse,
    st.sampled_from(STATUSES),
    st.sampled_from((b"", b"", b"hello\n", b"x" * 4096, "caf\u00e9".encode())),
)
forwards = st.just(Forward((WeightedCluster("a"),)))
actions = st.one_of(redirects, redirects, directs, directs, forwards)

conditions = st.recursive(
    st.one_of(
        st.just(Anything()),
        headers,
        st.builds(
            PathIs, texts(("/a", "/api", "/api/v1", "v1"), ("/a.*", "/api/.*"), present=False)
        ),
    ),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=2).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=1, max_size=2).map(tuple)),
    ),
    max_leaves=4,
)
policies = st.lists(
    st.tuples(
        st.lists(conditions, min_size=1, max_size=2).map(tuple),
        st.lists(conditions, min_size=1, max_size=2).map(tuple),
    ),
    max_size=2,
).map(
    lambda all_of_them: tuple(
        RbacPolicy(name=f"p{number}", permissions=one[0], principals=one[1])
        for number, one in enumerate(all_of_them)
    )
)
rbacs = st.builds(Rbac, action=st.sampled_from((Action.ALLOW, Action.DENY)), policies=policies)
# Nothing by chance: what Envoy does with one request, it does with the next.
aborts = st.builds(
    Abort,
    status=st.sampled_from((400, 403, 503, 555)),
    numerator=st.sampled_from((0, 100, 100)),
    headers=st.one_of(st.just(()), st.lists(headers, max_size=2).map(tuple)),
)


@st.composite
def answering(draw: st.DrawFn, *, governed: bool = False) -> RouteTable:
    """A table; with `governed`, some routes speak to the filters of their port."""
    made = draw(tables())
    hosts = []
    for host in made.virtual_hosts:
        found = []
        for route in host.routes:
            one = replace(route, action=draw(actions))
            if governed and draw(st.booleans()):
                one = replace(
                    one,
                    abort=draw(st.one_of(st.none(), aborts)),
                    rbac=draw(st.one_of(st.none(), st.lists(rbacs, max_size=1).map(tuple))),
                )
            found.append(one)
        hosts.append(VirtualHost(host.name, host.domains, tuple(found)))
    return replace(made, virtual_hosts=tuple(hosts))


def port(**extra: object) -> HttpPort:
    """A port with all filters that are known."""
    about: dict[str, object] = {
        "listener": "l",
        "address": None,
        "port": 80,
        "table": "t",
        "steps": (Step.RBAC, Step.RATE_LIMIT, Step.FAULT),
        "filters": frozenset({"rbac0", "limit", "fault"}),
    }
    return HttpPort(**(about | extra))  # type: ignore[arg-type]
