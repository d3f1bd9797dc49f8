# SPDX-License-Identifier: Apache-2.0
"""One rule of an AuthorizationPolicy, as it is asked of requests and as it is asked of connections.

Of requests it asks all that its author wrote. Of connections it asks what Istio's workload API would say: in
place of each part that is about requests stands a match without fields, which never holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

from runtime.model.http_rules import (
    AllOf,
    Anything,
    Condition,
    DestinationIn,
    Not,
    PortIn,
    RbacPolicy,
    SourceIn,
)
from runtime.model.policy import Group, IPNetwork, Match, Rule, ServiceAccountMatch
from runtime.source.fields import Field
from runtime.source.policy_texts import (
    either,
    header,
    hosts,
    methods,
    namespaces,
    paths,
    principals,
    service_accounts,
    string_match,
)

_HTTP = Match()  # about requests: never holds at a connection
_HEADER = re.compile(r"request\.headers\[([^\[\]]+)\]")
_BEYOND = {
    "remoteIpBlocks": "addresses that proxies before the client tell",
    "requestPrincipals": "identities of requests (JWT)",
}
_BEYOND_KEYS = ("remote.ip", "request.auth.", "experimental.envoy.filters.")


@dataclass(slots=True)
class Told:
    """A rule: `rule` as it is asked of requests, `group` of connections; `beyond` cannot be decided here."""

    rule: RbacPolicy
    group: Group
    beyond: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A list of values: what they ask of a request, and the field and values of a match of connections."""

    asks: Callable[[Sequence[Field]], Condition]
    where: str = ""
    values: Callable[[Sequence[Field]], tuple[Any, ...]] = tuple


def read_rule(rule: Field, *, name: str, namespace: str) -> Told:
    """Read a rule.

    Args:
        rule: the document's.
        name: what it is called where it decides.
        namespace: of the policy.

    Raises:
        FieldError: a field is wrong, or is not known: what it asks must not be left out.
    """
    check_fields(rule, "from", "to", "when")
    kinds = _kinds(namespace)
    beyond: list[str] = []
    who = [_source(each, kinds, beyond) for each in rule.get("from").items()]
    what = [_operation(each, kinds) for each in rule.get("to").items()]
    asked = [_when(each, kinds, beyond) for each in rule.get("when").items()]
    of_request = tuple(condition for condition, about, _ in asked if about == "to")
    of_client = tuple(condition for condition, about, _ in asked if about == "from")
    group: list[Rule] = []
    group += [tuple(match for _, match in part) for part in (what, who) if part]
    group += [(match,) for _, _, match in asked]
    return Told(
        RbacPolicy(
            name=name,
            permissions=tuple(_all((one, *of_request)) for one, _ in what) or (_all(of_request),),
            principals=tuple(_all((one, *of_client)) for one, _ in who) or (_all(of_client),),
        ),
        tuple(group),
        beyond,
    )


def check_fields(of: Field, *known: str) -> None:
    """Raises: FieldError: there is a field that is not known."""
    if of.given and not isinstance(of.value, dict):
        raise of.error("must be a mapping")
    for name in of.value or ():
        if name not in known:
            raise of.get(str(name)).error(f"not known here; {', '.join(known)} are")


def _check_lists(of: Field, *known: str) -> None:
    """What names nothing would stand for anybody, or for anything.

    Raises:
        FieldError: there is a list that is not known, or none that names something.
    """
    check_fields(of, *known)
    if any(list(of.get(name).items()) for name in known):
        return
    given = [name for name in known if name in (of.value or ())]
    if not given:
        raise of.error("must not be empty")
    raise of.get(given[0]).error("must not be empty, where no other list names anything")


def _all(conditions: tuple[Condition, ...]) -> Condition:
    asked = tuple(one for one in conditions if one != Anything())
    return asked[0] if len(asked) == 1 else AllOf(asked) if asked else Anything()


def _source(item: Field, kinds: dict[str, _Kind], beyond: list[str]) -> tuple[Condition, Match]:
    check_fields(item, "source")
    source = item.get("source")
    names = ("principals", "namespaces", "serviceAccounts", "ipBlocks")
    _check_lists(source, *_both(*names, *_BEYOND))
    unknown = [one for one in _both(*_BEYOND) if list(source.get(one).items())]
    beyond += [f"{source.path}.{one}: {_BEYOND[_plain(one)]}" for one in unknown]
    condition, match = _fields(source, names, kinds)
    return condition, _HTTP if unknown else match


def _operation(item: Field, kinds: dict[str, _Kind]) -> tuple[Condition, Match]:
    check_fields(item, "operation")
    operation = item.get("operation")
    names = ("hosts", "methods", "paths", "ports")
    _check_lists(operation, *_both(*names))
    return _fields(operation, names, kinds)


def _when(item: Field, kinds: dict[str, _Kind], beyond: list[str]) -> tuple[Condition, str, Match]:
    check_fields(item, "key", "values", "notValues")
    key = item.get("key").name()
    values, others = list(item.get("values").items()), list(item.get("notValues").items())
    if not (values or others):
        raise item.error("must have values or notValues")
    if key.startswith(_BEYOND_KEYS):
        beyond.append(f"{item.path}.key: {key}")
        return Anything(), "to", _HTTP
    named = _HEADER.fullmatch(key)
    if named is None and key not in kinds:
        raise item.get("key").error(f"{key!r} is not known here")
    kind = _of_header(named[1]) if named else kinds[key]
    about = "from" if key.startswith(("source.", "request.")) else "to"
    return _asked(values, others, kind), about, _matched(values, others, kind)


def _fields(of: Field, names: Sequence[str], kinds: dict[str, _Kind]) -> tuple[Condition, Match]:
    """All lists of a source or an operation: each must hold."""
    conditions: list[Condition] = []
    match, about_http = Match(), False
    for name in names:
        values, others = list(of.get(name).items()), list(of.get(_not(name)).items())
        if values or others:
            conditions.append(_asked(values, others, kinds[name]))
            match = _matched(values, others, kinds[name], match)
            about_http = about_http or not kinds[name].where
    return _all(tuple(conditions)), _HTTP if about_http else match


def _asked(values: Sequence[Field], others: Sequence[Field], kind: _Kind) -> Condition:
    wanted = (kind.asks(values),) if values else ()
    unwanted = (Not(kind.asks(others)),) if others else ()
    return _all((*wanted, *unwanted))


def _matched(
    values: Sequence[Field], others: Sequence[Field], kind: _Kind, match: Match = _HTTP
) -> Match:
    """A match that asks a connection for these values too; as it was, where they are about requests."""
    if not kind.where:
        return match
    found = {kind.where: kind.values(values), f"not_{kind.where}": kind.values(others)}
    return replace(match, **found)


def _not(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


def _plain(name: str) -> str:
    return name if name in _BEYOND else name[3].lower() + name[4:]


def _both(*names: str) -> Iterator[str]:
    for name in names:
        yield name
        yield _not(name)


def _kinds(namespace: str) -> dict[str, _Kind]:
    """By the names of fields, and by the keys of `when`."""

    def accounts(fields: Sequence[Field]) -> tuple[ServiceAccountMatch, ...]:
        return tuple(ServiceAccountMatch(*_account(one, namespace)) for one in fields)

    def by_account(fields: Sequence[Field]) -> Condition:
        return service_accounts([_account(one, namespace) for one in fields])

    who = _Kind(lambda found: principals(_names(found)), "principals", _string_matches)
    where = _Kind(lambda found: namespaces(_names(found)), "namespaces", _string_matches)
    account = _Kind(by_account, "service_accounts", accounts)
    near = _Kind(
        lambda found: either([SourceIn(one) for one in _blocks(found)]), "source_ips", _blocks
    )
    far = _Kind(
        lambda found: either([DestinationIn(one) for one in _blocks(found)]),
        "destination_ips",
        _blocks,
    )
    port = _Kind(
        lambda found: either([PortIn(one, one) for one in _ports(found)]),
        "destination_ports",
        _ports,
    )
    return {
        "principals": who, "source.principal": who, "namespaces": where, "source.namespace": where,
        "serviceAccounts": account, "source.serviceAccount": account, "ipBlocks": near,
        "source.ip": near, "destination.ip": far, "ports": port, "destination.port": port,
        "hosts": _Kind(lambda found: hosts(_names(found))),
        "methods": _Kind(lambda found: methods(_names(found))), "paths": _Kind(paths),
        "connection.sni": _Kind(_server_name),
    }  # fmt: skip


def _of_header(name: str) -> _Kind:
    lower = name.lower()
    found = ":authority" if lower == "host" else lower
    return _Kind(lambda fields: header(found, _names(fields)))


def _server_name(fields: Sequence[Field]) -> Condition:
    """Requests that are seen here came without TLS: they name no server."""
    _names(fields)
    return Not(Anything())


def _names(fields: Sequence[Field]) -> list[str]:
    return [one.name() for one in fields]


def _string_matches(fields: Sequence[Field]) -> tuple[Any, ...]:
    return tuple(string_match(one.name()) for one in fields)


def _account(one: Field, namespace: str) -> tuple[str, str]:
    where, slash, name = one.name().rpartition("/")
    if (slash and not (where and name)) or "/" in where or "*" in one.name():
        raise one.error("must be SERVICE-ACCOUNT or NAMESPACE/SERVICE-ACCOUNT")
    return where or namespace, name


def _blocks(fields: Sequence[Field]) -> tuple[IPNetwork, ...]:
    return tuple(_block(one) for one in fields)


def _block(one: Field) -> IPNetwork:
    try:
        return ip_network(one.name(), strict=False)
    except ValueError:
        raise one.error(
            f"must be an address or a block such as 10.0.0.0/8, not {one.value!r}"
        ) from None


def _ports(fields: Sequence[Field]) -> tuple[int, ...]:
    return tuple(_port(one) for one in fields)


def _port(one: Field) -> int:
    text = one.name()
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise one.error(f"must be a port's number in quotes, not {text!r}")
    return int(text)
