# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicies of files: what they say, whom they are for, and what is refused of them."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.http import AllOf, AnyOf, Anything, HeaderMatch, PathIs, PortIn, TextKind
from runtime.model.http_picture import HttpPicture
from runtime.model.mesh import Workload
from runtime.model.policy import Action, Connection, Match, Policy, PolicyScope
from runtime.model.policy import decide as connection_decided
from runtime.plan.guards import why_not
from runtime.source.directory import Directory
from runtime.source.files import State
from runtime.source.kubernetes_yaml import Parsed, parse_text
from runtime.source.update import Update
from tests.plan.istio_policy import policies

ALLOW_GET = {"to": [{"operation": {"methods": ["GET"]}}]}


def document(
    *rules: Any, namespace: str = "shop", annotations: Any = None, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": namespace, "annotations": annotations or {}},
        "spec": {"rules": list(rules), **spec},
    }


def parsed(made: Any) -> Parsed:
    return parse_text(yaml.safe_dump(made), file="f.yaml")


def read(made: Any) -> Policy:
    found = parsed(made)
    assert not found.rejected
    (policy,) = found.manifests.values()
    assert isinstance(policy, Policy)
    return policy


def refusal(made: Any) -> str:
    found = parsed(made)
    assert not found.manifests
    ((where, why),) = found.rejected.items()
    assert where == "f.yaml document 1 (AuthorizationPolicy shop/p)"
    return why


def test_what_is_asked_of_requests_and_of_connections() -> None:
    made = read(document({**ALLOW_GET, "from": [{"source": {"namespaces": ["web"]}}]}))
    (rule,) = made.rules or ()
    assert rule.name == "ns[shop]-policy[p]-rule[0]"
    assert isinstance(rule.permissions[0], HeaderMatch)
    assert made.judges_requests
    ((what, who),) = made.groups
    assert what == (Match(),)  # never holds at a connection: nobody gets in by it
    assert who[0].namespaces
    plain = read(document({"to": [{"operation": {"ports": ["80"]}}]}))
    assert not plain.judges_requests
    assert plain.groups == (((Match(destination_ports=(80,)),),),)
    assert plain.rules
    assert plain.rules[0].permissions == (PortIn(80, 80),)


@pytest.mark.parametrize(
    ("spec", "namespace", "scope"),
    [
        ({}, "shop", PolicyScope.NAMESPACE),
        ({}, "istio-system", PolicyScope.GLOBAL),
        ({"selector": {"matchLabels": {"app": "a"}}}, "shop", PolicyScope.WORKLOAD_SELECTOR),
        ({"selector": {"matchLabels": {"app": "a"}}}, "istio-system", PolicyScope.WORKLOAD_SELECTOR),
        ({"selector": {"matchLabels": {}}}, "shop", PolicyScope.NAMESPACE),
        ({"targetRefs": [{"kind": "Service", "group": "", "name": "web"}]}, "shop", PolicyScope.SERVICE),
    ],
)  # fmt: skip
def test_whom_it_is_for(spec: Any, namespace: str, scope: PolicyScope) -> None:
    made = read(document(ALLOW_GET, namespace=namespace, **spec))
    assert made.scope is scope
    assert made.everywhere == ("selector" in spec and namespace == "istio-system")
    assert made.services == (("shop/web.shop.svc.cluster.local",) if "targetRefs" in spec else ())


def test_policies_for_gateways_guard_nothing_here() -> None:
    gateway = {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "g"}
    assert read(document(ALLOW_GET, targetRef=gateway)).services == ()
    service = {"kind": "Service", "group": "", "name": "web"}
    assert len(read(document(ALLOW_GET, targetRefs=[gateway, service])).services) == 1


def test_actions_that_are_not_decided_here() -> None:
    audit = read(document(ALLOW_GET, action="AUDIT"))
    assert (audit.dry_run, audit.groups, audit.rules) == (True, (), ())
    custom = read(document(ALLOW_GET, action="CUSTOM", provider={"name": "ext"}))
    assert custom.judges_requests
    assert custom.beyond == ("action: CUSTOM, which ext decides",)
    assert (custom.action, custom.groups) == (Action.DENY, ())
    trial = read(document(ALLOW_GET, annotations={"istio.io/dry-run": "true"}))
    assert trial.dry_run
    nobody = read(document())
    assert (nobody.action, nobody.rules, nobody.groups) == (Action.ALLOW, (), ())


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"from": [{"source": {"remoteIpBlocks": ["10.0.0.1"]}}]}, "spec.rules[0].from[0].source.remoteIpBlocks"),
        ({"from": [{"source": {"notRequestPrincipals": ["*"]}}]}, "source.notRequestPrincipals"),
        ({"when": [{"key": "request.auth.claims[iss]", "values": ["x"]}]}, "key: request.auth.claims[iss]"),
        ({"when": [{"key": "remote.ip", "notValues": ["10.0.0.1"]}]}, "key: remote.ip"),
        ({"when": [{"key": "experimental.envoy.filters.a[b]", "values": ["x"]}]}, "key: experimental"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_here_is_told(rule: Any, why: str) -> None:
    made = read(document(rule))
    assert len(made.beyond) == 1
    assert why in made.beyond[0]
    assert made.needs_http


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rules": [{"whom": []}]}, "spec.rules[0].whom: not known here"),
        ({"rules": [{"from": [{"source": {"jwt": ["x"]}}]}]}, "from[0].source.jwt: not known here"),
        ({"rules": [{"to": [{"operation": {}}]}]}, "to[0].operation: must not be empty"),
        ({"rules": [{"to": [{}]}]}, "to[0].operation: must not be empty"),
        ({"rules": [{"to": [{"operation": {"methods": []}}]}]}, "to[0].operation.methods: must not be empty"),
        ({"rules": [{"from": [{"source": {"principals": [], "notRequestPrincipals": None}}]}]}, "from[0].source.principals: must not be empty"),
        ({"rules": [{"when": [{"key": "a.b", "values": ["x"]}]}]}, "'a.b' is not known here"),
        ({"rules": [{"when": [{"key": "source.ip"}]}]}, "must have values or notValues"),
        ({"rules": [{"to": [{"operation": {"ports": ["http"]}}]}]}, "ports[0]: must be a port's number"),
        ({"rules": [{"to": [{"operation": {"ports": [80]}}]}]}, "ports[0]: must be a string"),
        ({"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/40"]}}]}]}, "ipBlocks[0]: must be an address or a block"),
        ({"rules": [{"from": [{"source": {"serviceAccounts": ["a/b/c"]}}]}]}, "must be SERVICE-ACCOUNT"),
        ({"rules": [{"to": [{"operation": {"paths": ["/a*/{*}"]}}]}]}, "must be a path with"),
        ({"rules": [{"to": [{"operation": {"paths": ["/{**}/{*}"]}}]}]}, "must be the last"),
        ({"rules": [{"to": [{"operation": {"paths": ["/a{*}"]}}]}]}, "whole segments"),
        ({"rules": [{"to": [{"operation": {"methods": [""]}}]}]}, "methods[0]: must not be empty"),
        ({"action": "LOG"}, "spec.action: must be ALLOW or DENY or AUDIT or CUSTOM"),
        ({"action": "CUSTOM"}, "spec.provider.name: missing"),
        ({"selector": {"matchExpressions": []}}, "spec.selector.matchExpressions: not known here"),
        ({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Service", "name": "x"}]}, "stands beside targetRefs"),
        ({"targetRefs": [{"kind": "Service", "name": "x", "namespace": "other"}]}, "its own namespace"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_field(change: Any, why: str) -> None:
    made = document()
    made["spec"] |= change
    assert why in refusal(made)


def test_an_empty_list_beside_another_asks_for_nothing() -> None:
    operation = {"methods": ["GET"], "paths": []}
    assert read(document({"to": [{"operation": operation}]})) == read(document(ALLOW_GET))


def test_a_dry_run_that_is_no_answer_is_none_and_told() -> None:
    found = parsed(document(ALLOW_GET, annotations={"istio.io/dry-run": "no"}))
    (why,) = found.rejected.values()
    assert 'annotations["istio.io/dry-run"]: must be true or false' in why
    assert list(found.manifests.values()) == [read(document(ALLOW_GET))]


def test_texts() -> None:
    operation = {"methods": ["*"], "paths": ["/a", "/b*", "*/c", "/d/{*}/e"], "hosts": ["*.test"]}
    (rule,) = read(document({"to": [{"operation": operation}]})).rules or ()
    (all_of_it,) = rule.permissions
    assert isinstance(all_of_it, AllOf)
    host, method, path = all_of_it.conditions
    assert isinstance(host, HeaderMatch)
    assert (host.text.kind, host.text.value, host.text.ignore_case) == (
        TextKind.SUFFIX,
        ".test",
        True,
    )
    assert isinstance(method, HeaderMatch)
    assert method.text.kind is TextKind.PRESENT
    # Many texts are one: lists are multiplied with each other.
    assert isinstance(path, PathIs)
    assert path.text.kind is TextKind.REGEX
    any_path = read(document({"to": [{"operation": {"paths": ["/x", "*"]}}]})).rules
    assert any_path
    assert any_path[0].permissions == (Anything(),)
    few = read(document({"to": [{"operation": {"methods": ["GET", "PUT"]}}]})).rules
    assert few
    assert isinstance(few[0].permissions[0], AnyOf)


@settings(deadline=None, max_examples=200)
@given(policies())
def test_what_istio_takes_is_taken(documents: list[Any]) -> None:
    for one in documents:
        made = read(one)
        assert not made.beyond
        assert len(made.rules or ()) == len(one["spec"]["rules"]) == len(made.groups)


_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6), st.just("*")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ("rules", "from", "to", "when", "source", "operation", "paths", "ports", "key",
                 "values", "principals", "selector", "matchLabels", "targetRefs", "action")
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(_values)
def test_whatever_is_written_is_taken_or_refused_with_its_field(spec: Any) -> None:
    found = parsed({**document(), "spec": spec})
    assert len(found.manifests) + len(found.rejected) == 1
    for why in found.rejected.values():
        assert why.startswith("spec"), why


# Whole directories.

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-raw, port: 90}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.1], targetRef: {kind: Pod, name: web-a}}]
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web-a, namespace: shop, labels: {app: web, version: v1}}
spec: {serviceAccountName: front}
"""


class Files:
    """A directory, and all that was told of it."""

    def __init__(self, path: Path) -> None:
        self._path, self._directory, self._state = path, Directory(path), State()
        self.policies: dict[str, Policy] = {}
        self.workloads: dict[str, Workload] = {}
        self.http = HttpPicture()
        self.rejected: dict[str, str] = {}

    def write(self, name: str, text: str | None) -> Update:
        if text is None:
            (self._path / name).unlink()
        else:
            (self._path / name).write_text(text)
        update = self._state.take(self._directory.scan())
        self.policies |= {one.key: one for one in update.policies}
        self.policies = {k: p for k, p in self.policies.items() if k not in update.removed_policies}
        self.workloads |= {one.uid: one for one in update.workloads}
        self.rejected |= {one.resource: one.reason for one in update.rejections}
        if update.http:
            self.http.take(update.http)
        return update


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.write("web.yaml", SERVICE)
    return made


def test_a_guarded_service_without_routes_gets_a_table_that_leads_to_itself(files: Files) -> None:
    assert not files.http.tables
    files.write("p.yaml", yaml.safe_dump(document(ALLOW_GET)))
    assert list(files.policies) == ["shop/p"]
    # A port that says that it is no HTTP is left alone.
    assert list(files.http.tables) == ["shop/web:80"]
    (route,) = files.http.tables["shop/web:80"].virtual_hosts[0].routes
    assert route.name == "default"
    files.write("p.yaml", yaml.safe_dump(document({"from": [{"source": {"namespaces": ["a"]}}]})))
    assert not files.http.tables
    files.write("p.yaml", None)
    assert not files.policies


def test_a_bad_document_is_named_and_the_last_good_one_keeps_guarding(files: Files) -> None:
    files.write("p.yaml", yaml.safe_dump(document(ALLOW_GET)))
    before = files.policies["shop/p"]
    update = files.write("p.yaml", yaml.safe_dump(document({"to": [{"operation": {"verbs": []}}]})))
    assert not update.removed_policies
    assert files.policies["shop/p"] == before
    ((where, why),) = files.rejected.items()
    assert where == "p.yaml document 1 (AuthorizationPolicy shop/p)"
    assert "spec.rules[0].to[0].operation.verbs" in why


def test_a_selector_asks_for_labels_of_the_pod_or_of_its_service(files: Files) -> None:
    def chosen(**labels: str) -> tuple[bool, bool]:
        made = read(document(ALLOW_GET, selector={"matchLabels": labels}))
        (workload,) = files.workloads.values()
        return made.applies_to(workload), made.is_doubtful(workload)

    assert chosen(app="web") == (True, False)
    assert chosen(app="other") == (False, False)
    # Nothing tells the labels of that pod: in doubt it is guarded.
    assert chosen(app="web", version="v1") == (True, True)
    files.write("pod.yaml", POD)
    assert chosen(app="web", version="v1") == (True, False)
    assert chosen(app="web", version="v2") == (False, False)
    assert chosen(app="web", tier="x") == (False, False)
    (workload,) = files.workloads.values()
    assert workload.service_account == "front"
    files.write("pod.yaml", None)
    assert chosen(app="web", version="v2") == (True, True)


BY_WHO = {"from": [{"source": {"namespaces": ["evil"]}}]}
BY_WHO_NOT = {"from": [{"source": {"notNamespaces": ["evil"]}}]}
STRANGER = Connection(
    source=ip_address("10.244.0.9"), destination=ip_address("10.244.0.1"), destination_port=8080
)


def lets_in(policy: Policy) -> bool:
    return connection_decided([policy], STRANGER).allowed


@pytest.mark.parametrize(("rule", "action"), [(BY_WHO, "DENY"), (BY_WHO_NOT, "ALLOW")])
def test_where_no_identity_is_told_rules_on_them_refuse(
    files: Files, rule: Any, action: str
) -> None:
    def whether() -> tuple[bool, bool]:
        """Whether the stranger may connect, and whether requests can be judged."""
        judging = files.policies["shop/p"]
        return lets_in(files.policies["shop/l4"]), not why_not([judging])

    connecting = document(rule, action=action)
    connecting["metadata"]["name"] = "l4"
    text = yaml.safe_dump_all([connecting, document({**rule, **ALLOW_GET}, action=action)])
    files.write("p.yaml", text)
    assert whether() == (False, False)
    files.write("pod.yaml", POD)
    assert whether() == (True, True)
    files.write("pod.yaml", None)
    assert whether() == (False, False)


UNREADABLE = {"to": [{"operation": {"verbs": ["GET"]}}]}


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_a_policy_that_was_never_good_opens_no_door(files: Files, action: str) -> None:
    update = files.write("p.yaml", yaml.safe_dump(document(UNREADABLE, action=action)))
    (policy,) = update.policies
    assert not lets_in(policy)
    assert "spec.rules[0].to[0].operation.verbs: not known here" in why_not([policy])[0]
    assert set(files.http.tables) == {"shop/web:80"}
    assert len(update.rejections) == 1
    # What is wrong now is what is said.
    worse = document({"to": [{"operation": {"ports": ["0"]}}]}, action=action)
    (policy,) = files.write("p.yaml", yaml.safe_dump(worse)).policies
    assert "ports[0]: must be a port" in why_not([policy])[0]
    # Nor does it where its file cannot be told apart, or once it is good: that version is then the last good.
    assert not files.write("p.yaml", "a: [").removed_policies
    files.write("p.yaml", yaml.safe_dump(document(ALLOW_GET)))
    assert files.policies["shop/p"] == read(document(ALLOW_GET))
    files.write("p.yaml", yaml.safe_dump(worse))
    assert files.policies["shop/p"] == read(document(ALLOW_GET))
    assert files.write("p.yaml", None).removed_policies == ("shop/p",)


def test_a_policy_of_another_version_is_in_doubt_too(files: Files) -> None:
    newer = {**document(ALLOW_GET), "apiVersion": "security.istio.io/v2"}
    (policy,) = files.write("p.yaml", yaml.safe_dump(newer)).policies
    assert "apiVersion" in why_not([policy])[0]


@pytest.mark.parametrize(
    ("namespace", "spec", "scope"),
    [
        ("shop", {"selector": {"matchLabels": {"app": "web"}}}, PolicyScope.WORKLOAD_SELECTOR),
        ("shop", {"targetRef": {"kind": "Service", "name": "web"}}, PolicyScope.SERVICE),
        ("shop", {"selector": {"matchExpressions": []}}, PolicyScope.NAMESPACE),
        ("istio-system", {"selector": []}, PolicyScope.GLOBAL),
    ],
)
def test_in_doubt_it_is_for_whom_it_says_or_all_of_its_namespace(
    files: Files, namespace: str, spec: Any, scope: PolicyScope
) -> None:
    made = document(UNREADABLE, namespace=namespace, **spec)
    assert files.write("p.yaml", yaml.safe_dump(made)).policies[0].scope is scope


@pytest.mark.parametrize(
    ("fields", "tried"), [({"action": "AUDIT"}, True), ({"annotations": {"istio.io/dry-run": "true"}}, True), ({"annotations": {"istio.io/dry-run": "no"}}, False)]
)  # fmt: skip
def test_in_doubt_what_is_only_tried_is_so_still(files: Files, fields: Any, *, tried: bool) -> None:
    (policy,) = files.write("p.yaml", yaml.safe_dump(document(UNREADABLE, **fields))).policies
    assert policy.dry_run == tried


def test_in_doubt_it_is_enforced_from_then_on(files: Files) -> None:
    def tried(word: str) -> bool:
        made = document(ALLOW_GET, annotations={"istio.io/dry-run": word})
        files.write("p.yaml", yaml.safe_dump(made))
        return files.policies["shop/p"].dry_run

    assert tried("true")
    assert not tried("no")
    assert list(files.rejected) == ["p.yaml document 1 (AuthorizationPolicy shop/p)"]
