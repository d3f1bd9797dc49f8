# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicies at random, and the rules that Istio gives Envoy for them: straight from the documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.plan.envoy_answers import PEER

Json = dict[str, Any]
_TYPES = "type.googleapis.com/envoy"

NAMESPACES = ("web", "bank", "w*", "*nk", "*")
PRINCIPALS = (
    "cluster.local/ns/web/sa/front",
    "cluster.local/ns/*",
    "*/sa/default",
    "*",
    "cluster.local/ns/bank/sa/default",
)
ACCOUNTS = ("front", "bank/default", "web/front")
BLOCKS = ("10.0.0.0/24", "192.0.2.7", "fd00::/16", "0.0.0.0/0")
METHODS = ("GET", "POST", "PUT", "P*", "*T", "*")
PATHS = ("/a", "/a*", "*/v1", "/api/{*}", "/api/{**}", "/{*}/v1", "/api/v1/{*}.json", "/*", "*")
HOSTS = ("shop.test", "SHOP.test", "*.test", "shop.*", "*")
HEADERS = ("x-a", "X-B")
VALUES = ("1", "one*", "*two", "*")


def _lists(names: Json, *, most: int) -> st.SearchStrategy[Json]:
    """Some of these lists, or of their not-forms, and at least one."""
    both = {
        key: st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)
        for name, values in names.items()
        for key in (name, f"not{name[0].upper()}{name[1:]}")
    }
    return st.fixed_dictionaries({}, optional=both).filter(bool)


sources = _lists(
    {
        "namespaces": NAMESPACES,
        "principals": PRINCIPALS,
        "serviceAccounts": ACCOUNTS,
        "ipBlocks": BLOCKS,
    },
    most=2,
)
operations = _lists({"methods": METHODS, "paths": PATHS, "hosts": HOSTS}, most=5)
_KEYS = (
    *((f"request.headers[{name}]", VALUES) for name in HEADERS),
    ("source.ip", BLOCKS), ("source.namespace", NAMESPACES), ("source.principal", PRINCIPALS),
    ("connection.sni", ("a.test", "*")),
)  # fmt: skip
conditions = st.sampled_from(_KEYS).flatmap(
    lambda key: _lists({"values": key[1]}, most=3).map(lambda told: {"key": key[0], **told})
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(sources.map(lambda made: {"source": made}), min_size=1, max_size=2),
        "to": st.lists(operations.map(lambda made: {"operation": made}), min_size=1, max_size=2),
        "when": st.lists(conditions, min_size=1, max_size=2),
    },
)


@st.composite
def policies(draw: st.DrawFn) -> list[Json]:
    made = draw(st.lists(st.tuples(st.sampled_from(("ALLOW", "ALLOW", "DENY")), st.lists(rules, max_size=2)), min_size=1, max_size=2))  # fmt: skip
    return [
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": f"p{number}", "namespace": "web"},
            "spec": {"action": action, "rules": told},
        }
        for number, (action, told) in enumerate(made)
    ]


def filters() -> list[Json]:
    """Two filters of RBAC in Istio's order; what they do is told route by route."""
    empty = {"@type": f"{_TYPES}.extensions.filters.http.rbac.v3.RBAC"}
    return [{"name": name, "typed_config": empty} for name in ("DENY", "ALLOW")]


def per_route(documents: list[Json]) -> Json:
    """What a route tells these filters."""
    made = {}
    for action in ("DENY", "ALLOW"):
        chosen = [one for one in documents if one["spec"]["action"] == action]
        own: Json = {"@type": f"{_TYPES}.extensions.filters.http.rbac.v3.RBACPerRoute"}
        if chosen:
            found = {
                f"ns[web]-policy[{one['metadata']['name']}]-rule[{index}]": _rule(rule)
                for one in chosen
                for index, rule in enumerate(one["spec"]["rules"])
            }
            own["rbac"] = {"rules": {"action": action, "policies": found}}
        made[action] = own
    return made


def _rule(rule: Json) -> Json:
    what: list[Json] = []
    who: list[Json] = []
    for one in rule.get("when", ()):
        key = one["key"]
        leaf = _LEAVES.get(key) or _header(key.removeprefix("request.headers[").removesuffix("]"))
        word, where = ("rule", what) if key == "connection.sni" else ("id", who)
        where += _both(one, "values", leaf, word)
    return {
        "permissions": _every(
            [each["operation"] for each in rule.get("to", ())],
            ("methods", "paths", "hosts"),
            what,
            "rule",
        ),
        "principals": _every(
            [each["source"] for each in rule.get("from", ())],
            ("namespaces", "principals", "serviceAccounts", "ipBlocks"),
            who,
            "id",
        ),
    }


def _every(each: list[Json], names: tuple[str, ...], more: list[Json], word: str) -> list[Json]:
    made = [
        [part for name in names for part in _both(one, name, _LEAVES[name], word)] + more
        for one in each
    ] or [more]
    return [{f"and_{word}s": {f"{word}s": one or [{"any": True}]}} for one in made]


def _both(of: Json, name: str, leaf: Callable[[str], Json], word: str) -> list[Json]:
    other = f"not{name[0].upper()}{name[1:]}"
    found: list[Json] = []
    if name in of:
        found.append({f"or_{word}s": {f"{word}s": [leaf(value) for value in of[name]]}})
    if other in of:
        unwanted = {f"or_{word}s": {f"{word}s": [leaf(value) for value in of[other]]}}
        found.append({f"not_{word}": unwanted})
    return found


def _text(value: str, prefix: str = "") -> Json:
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        if prefix:
            return {"safe_regex": {"regex": f"{prefix}.*{value[1:]}"}}
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def _header(name: str, *, fold: bool = False) -> Callable[[str], Json]:
    def leaf(value: str) -> Json:
        if value == "*":
            return {"header": {"name": name, "present_match": True}}
        text = _text(value) | ({"ignore_case": True} if fold else {})
        return {"header": {"name": name, "string_match": text}}

    return leaf


def _path(value: str) -> Json:
    if "{" in value:
        template = value.replace("{*}", "*").replace("{**}", "**")
        config = {
            "@type": f"{_TYPES}.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": template,
        }
        name = "envoy.path.match.uri_template.uri_template_matcher"
        return {"uri_template": {"name": name, "typed_config": config}}
    return {"url_path": {"path": _text(value)}}


def _peer(text: Json) -> Json:
    return {"filter_state": {"key": PEER, "string_match": text}}


def _account(value: str) -> Json:
    namespace, _, name = value.rpartition("/")
    regex = f"spiffe://.+/ns/{namespace or 'web'}/(.+/|)sa/{name}(/.+)?"
    return _peer({"safe_regex": {"regex": regex}})


def _block(value: str) -> Json:
    address, _, length = value.partition("/")
    # Where the client is comes from a header here, as all of them are on one machine.
    return {"remote_ip": {"address_prefix": address, "prefix_len": int(length or 32)}}


_LEAVES: dict[str, Callable[[str], Json]] = {
    "methods": _header(":method"),
    "hosts": _header(":authority", fold=True),
    "paths": _path,
    "namespaces": lambda value: _peer({"safe_regex": {"regex": f".*/ns/{value.replace('*', '.*')}/.*"}}),
    "principals": lambda value: _peer(_text(value, "spiffe://")),
    "serviceAccounts": _account,
    "ipBlocks": _block,
    "connection.sni": lambda value: {"requested_server_name": _text(value)},
}  # fmt: skip
_LEAVES |= {
    "source.ip": _block,
    "source.namespace": _LEAVES["namespaces"],
    "source.principal": _LEAVES["principals"],
}
