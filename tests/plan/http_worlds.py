# SPDX-License-Identifier: Apache-2.0
"""Random route tables over a small world, and random requests that come close to what they ask for."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from runtime.model.http import (
    DirectResponse,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    Route,
    RouteMatch,
    RouteTable,
    TextKind,
    TextMatch,
    VirtualHost,
)
from runtime.plan.reference import Request

DOMAINS = (
    "*", "a.test", "b.test", "www.a.test", "*.a.test", "*.test", "*a.test", "a.*", "www.*", "a",
    "10.0.0.1", "[fd00::1]", "A-b_c.Test", "a.test.", "*-c.test",
)  # fmt: skip
HOSTS = (
    "a.test", "b.test", "www.a.test", "x.www.a.test", "xa.test", ".a.test", "test", "A.TEST", "a",
    "a.b", "www.", "10.0.0.1", "[fd00::1]", "a-b_c.test", "a.test.", "b-c.test", "-c.test", "zzz",
)  # fmt: skip
PARTS = ("", "a", "api", "v1", "A", "api.v1", "a%20b", "a%2Fb", "%5cb", "%252f", "aa", "~x", "0")
PATHS = ("/", "/a", "/a/", "/api", "/api/v1", "/api/v1/a", "/API", "/a/a/a", "//a", "/api/v1x")
PATTERNS = (
    "/a", "/a.*", "/[a-z]+", "/api/v[0-9]+(/.*)?", "(?i)/api/.*", "/a/[^/]+/a", ".*/v1", "/(a|api)+",
    "/a{2,3}", r"/\w+/\d+", "/api/v1|/a", ".*", "^/a$", "/[^a]*", "/.{3}", ".*a.a.*", r"/\Qa.b\E.*",
    r"/a\b.*", r"/\pL+",
)  # fmt: skip
NAMES = ("x-a", "x-b", "user-agent", "cookie", "x-user_id", "x.y")
VALUES = ("", "1", "a", "ab", "aB", "abc", "b a", "a,b", "10", "v1", "a=1; b=2", "\ta", "~", "A")
VALUE_PATTERNS = (
    "a",
    "a+b?",
    ".*b.*",
    "(?i)ab",
    "[0-9]+",
    "v1|a",
    ".+",
    "a.?",
    r".*\s.*",
    "b.*|.*b",
)
PARAMETERS = ("q", "p", "Q", "page-size", "a.b")
METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "PURGE", "MKCOL")


def texts(
    values: tuple[str, ...], patterns: tuple[str, ...], *, present: bool = True
) -> st.SearchStrategy[TextMatch]:
    kinds = (TextKind.EXACT, TextKind.PREFIX, TextKind.SUFFIX, TextKind.CONTAINS)
    # Envoy takes no empty prefix, suffix or part.
    plain = st.builds(TextMatch, st.sampled_from(kinds), st.sampled_from(values), st.booleans())
    plain = plain.filter(lambda text: text.value or text.kind is TextKind.EXACT)
    return st.one_of(
        plain,
        st.builds(TextMatch, st.just(TextKind.REGEX), st.sampled_from(patterns)),
        *([st.just(TextMatch(TextKind.PRESENT))] if present else []),
    )


paths = st.one_of(
    st.builds(
        PathMatch,
        st.sampled_from((PathKind.EXACT, PathKind.PREFIX)),
        st.one_of(
            st.sampled_from(PATHS),
            st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map(
                lambda a: "/" + "/".join(a)
            ),
        ),
        st.booleans(),
    ),
    st.builds(
        PathMatch,
        st.just(PathKind.SEPARATED_PREFIX),
        st.sampled_from([path for path in PATHS if len(path) > 1 and not path.endswith("/")]),
        st.booleans(),
    ),
    st.builds(PathMatch, st.just(PathKind.REGEX), st.sampled_from(PATTERNS)),
)
headers = st.one_of(
    st.builds(
        HeaderMatch, st.sampled_from(NAMES), texts(VALUES, VALUE_PATTERNS), st.booleans(),
        st.booleans(),
    ),
    st.builds(
        HeaderMatch, st.just(":method"), st.builds(TextMatch, st.just(TextKind.EXACT), st.sampled_from(METHODS)),
        st.booleans(),
    ),
    st.builds(
        HeaderMatch, st.sampled_from((":authority", "host")),
        texts(("a.test", "a.test:80", ":8080", "www."), (r"a\.test(:\d+)?", ".*80")), st.booleans(),
    ),
    st.builds(HeaderMatch, st.just(":path"), texts(("/a", "?q", "q=1"), ("/a.q=1", ".*p.*")), st.booleans()),
)  # fmt: skip
queries = st.builds(QueryMatch, st.sampled_from(PARAMETERS), texts(VALUES[:6], VALUE_PATTERNS))


def _few(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.just(()), st.just(()), st.lists(values, max_size=3).map(tuple))


routes = st.builds(
    Route,
    match=st.builds(RouteMatch, paths, _few(headers), _few(queries)),
    action=st.just(DirectResponse(200)),
)


@st.composite
def tables(draw: st.DrawFn) -> RouteTable:
    domains = draw(st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=8, unique_by=str.lower))
    hosts: list[VirtualHost] = []
    while domains:
        count = draw(st.integers(1, len(domains)))
        mine, domains = tuple(domains[:count]), domains[count:]
        found = draw(st.lists(routes, max_size=8))
        hosts.append(VirtualHost(f"h{len(hosts)}", mine, tuple(found)))
    ignore = draw(st.sampled_from((True, True, True, False)))
    return RouteTable(name="t", virtual_hosts=tuple(hosts), ignore_port_in_host=ignore)


@dataclass(frozen=True, slots=True)
class Maker:
    """Requests for a table: pieces of what it asks for, sometimes changed a little."""

    table: RouteTable

    def request(self, seed: int) -> Request:
        chance = random.Random(seed)
        hosts = [host for host in self.table.virtual_hosts if host.routes]
        route = (
            chance.choice(chance.choice(hosts).routes) if hosts and chance.random() < 0.8 else None
        )
        made = Request(
            method=chance.choice(METHODS), target=chance.choice(PATHS),
            authority=self._authority(chance),
        )  # fmt: skip
        if route and chance.random() < 0.8:
            made = replace(made, target=_path_for(route.match.path, chance))
        return self._dress(made, route, chance)

    def _authority(self, chance: random.Random) -> str:
        host = chance.choice(HOSTS)
        if chance.random() < 0.5:
            domain = chance.choice(chance.choice(self.table.virtual_hosts).domains)
            host = domain.replace("*", chance.choice(("a", "www", "x.y", "0"))) or "a"
        return host + chance.choice(("", "", "", ":80", ":8080"))

    def _dress(self, made: Request, route: Route | None, chance: random.Random) -> Request:
        fields: dict[str, str] = {}
        query: dict[str, str | None] = {}
        for _ in range(chance.randrange(3)):
            fields[chance.choice(NAMES)] = chance.choice(VALUES)
            query[chance.choice(PARAMETERS)] = chance.choice((None, *VALUES[:6]))
        for header in route.match.headers if route else ():
            if header.name == ":method" and header.text.value:
                made = replace(made, method=header.text.value)
            elif (
                not header.name.startswith(":") and header.name != "host" and chance.random() < 0.8
            ):
                fields[header.name] = _value_for(header.text, chance)
        for parameter in route.match.query if route else ():
            if chance.random() < 0.8:
                query[parameter.name] = _value_for(parameter.text, chance).replace(" ", "+")
        parts = [name if value is None else f"{name}={value}" for name, value in query.items()]
        if parts and chance.random() < 0.8:
            chance.shuffle(parts)
            made = replace(
                made,
                target=f"{made.target}?{'&'.join(parts).replace(' ', '+').replace(chr(9), '')}",
            )
        if chance.random() < 0.1:
            options = ("keep-alive", "Keep-Alive", "", chance.choice(NAMES))
            fields["connection"] = ", ".join(chance.choices(options, k=2))
        cased = [
            (name.title() if chance.random() < 0.5 else name, text) for name, text in fields.items()
        ]
        return replace(made, headers=tuple(cased))


def _path_for(path: PathMatch, chance: random.Random) -> str:
    made = path.value if path.kind is not PathKind.REGEX else chance.choice(PATHS)
    made += chance.choice(("", "", "", "/", "/a", "a", "/0", "/v1"))
    return _changed(made, chance) if chance.random() < 0.3 else made


def _changed(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text)) if text else 0
    match chance.randrange(3):
        case 0:
            return text.swapcase()
        case 1:
            return text[: at + 1] + chance.choice("a1~") + text[at + 1 :]
        case _:
            return text[:at] + text[at + 1 :] if at else text


def _value_for(text: TextMatch, chance: random.Random) -> str:
    made = chance.choice(VALUES) if text.kind in {TextKind.REGEX, TextKind.PRESENT} else text.value
    if chance.random() < 0.3:
        made = chance.choice(VALUES) + made
    if chance.random() < 0.3:
        made += chance.choice(VALUES)
    return made.strip() if chance.random() < 0.9 else made.swapcase()


def wire(request: Request) -> bytes:
    """A request as bytes, in one of the ways in which it may be written."""
    lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {request.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
