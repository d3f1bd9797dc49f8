# SPDX-License-Identifier: Apache-2.0
"""The automaton that reads a request head, for the headers and query parameters of one route table.

RFC 9112 without its tolerance: at the first byte that is not plainly right it stops, with a reason.
What is allowed here has one meaning to everyone: to Envoy, to the endpoint, and to us. A path that
Envoy would rewrite before it matches it (dot segments, escapes of plain letters) is not allowed: the
gate rewrites it first (runtime/gate/normalise.c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from string import ascii_letters, digits
from typing import NamedTuple

from runtime.tables.http_layout import HttpMove
from runtime.tables.http_numbers import MOVES, READ, STOPS, Place, Seen, Verdict
from runtime.tables.http_rows import Rows, RowsFullError

# Those that Envoy reads, but for CONNECT, which is a tunnel, and TRACE, which tells who asks what it sent.
METHODS = (
    "ACL", "BIND", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LINK", "LOCK", "MERGE", "MKACTIVITY",
    "MKCALENDAR", "MKCOL", "MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE",
    "PUT", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
)  # fmt: skip
# Headers that mean something to whoever forwards a request, and so to no route.
_HOP = (
    "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer",
)  # fmt: skip
_CONNECTION = {"close": Seen.CLOSE, "keep-alive": Seen.KEEP_ALIVE, "upgrade": Seen.UPGRADE,
               "te": Seen.HOP, "http2-settings": Seen.HOP}  # fmt: skip
_ENVOY = "x-envoy-"
RESERVED = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", *_HOP}
)

_TOKEN = (ascii_letters + digits + "!#$%&'*+-.^_`|~").encode()  # RFC 9110, 5.6.2
_UNRESERVED = (ascii_letters + digits + "-._~").encode()  # RFC 3986, 2.3
_SEGMENT = _UNRESERVED + b"!$&'()*+,;=:@"
_QUERY = bytes(byte for byte in range(0x21, 0x7F) if byte not in b"#")
_VALUE = bytes(range(0x20, 0x7F)) + b"\t"
_ANY_VALUE = _VALUE + bytes(range(0x80, 0x100))
_BLANK = b" \t"
_HEX = b"0123456789ABCDEFabcdef"
_LENGTH_DIGITS = 18


Slots = tuple[tuple[str, int], ...]  # a name, and the place that its value goes to


class GrammarTooLargeError(ValueError):
    """More header and parameter names than an automaton of this size can know."""


class Step(NamedTuple):
    """What a byte does: the next state, and what it notes (see struct kmesh_http_move)."""

    next: State | int
    bit: int = 0
    first: int = 0
    last: int = 0
    field: int = 0


@dataclass(eq=False, slots=True)
class State:
    """A state; bytes that it has no step for are refused for its reason."""

    reason: Verdict
    steps: dict[int, Step] = field(default_factory=dict)

    def on(
        self,
        text: Iterable[int],
        to: State | int,
        *,
        bit: int = 0,
        first: int = 0,
        last: int = 0,
        field: int = 0,
    ) -> None:
        step = Step(to, bit, first, last, field)
        for byte in text:
            self.steps[byte] = step


def _either_case(letter: str) -> bytes:
    return (letter.lower() + letter.upper()).encode() if letter.isalpha() else letter.encode()


class Names:
    """Names spelled out letter by letter, beside all the others, which are one state.

    Args:
        alphabet: what names are made of.
        reason: why anything else is refused.
        fold: letters are the same in either case.
    """

    def __init__(self, alphabet: bytes, reason: Verdict, *, fold: bool) -> None:
        self._alphabet, self._reason, self._fold = alphabet, reason, fold
        self.other = self.family()
        self.root = self._state(self.other)
        self.named: list[State] = [self.root]

    def family(self) -> State:
        """A state that stays what it is until the name ends."""
        state = State(self._reason)
        state.on(self._alphabet, state)
        return state

    def _state(self, otherwise: State) -> State:
        state = State(self._reason)
        state.on(self._alphabet, otherwise)
        return state

    def spell(self, name: str, *, family: State | None = None) -> State:
        """The state in which a name has just been read.

        With a `family`, the one that longer names are in which begin with this one.
        """
        at = self.root
        for index, letter in enumerate(name):
            choices = _either_case(letter) if self._fold else letter.encode()
            found = at.steps[choices[0]].next
            assert isinstance(found, State)
            if found not in self.named:
                last = family is not None and index == len(name) - 1
                found = self._state(family if last and family else found)
                self.named.append(found)
                at.on(choices, found)
            at = found
        return at


def _line_end(after: State | int) -> State:
    state = State(Verdict.LINE_END)
    state.on(b"\n", after)
    return state


def _request_line(then: State, parameters: Slots, paths: Paths) -> State:
    """The first line: GET /path?query HTTP/1.1, and its end."""
    target, version = State(Verdict.BAD_TARGET), State(Verdict.VERSION)
    start = State(Verdict.BAD_METHOD)
    for method in METHODS:
        at = start
        for index, letter in enumerate(method.encode()):
            if letter not in at.steps:
                first = 0 if index else Place.METHOD
                at.on([letter], State(Verdict.BAD_METHOD), first=first, last=Place.METHOD)
            found = at.steps[letter].next
            assert isinstance(found, State)
            at = found
        at.on(b" ", target)
    at = version
    for letter in b"HTTP/1.1":
        after = State(Verdict.VERSION)
        at.on([letter], after)
        at = after
    at.on(b"\r", _line_end(then))
    _path(target, version, _query(version, parameters), paths)
    return start


def _path(target: State, version: State, query: State, paths: Paths) -> None:
    inside, fresh = (
        State(Verdict.BAD_TARGET),
        State(Verdict.BAD_TARGET),
    )  # in a segment, at its start
    dots = [State(Verdict.BAD_TARGET), State(Verdict.BAD_TARGET)]
    target.on(b"/", fresh, first=Place.PATH, last=Place.PATH)
    escape = _escape(inside, Verdict.ESCAPE if paths.normalised else Verdict.BAD_TARGET)
    for state in (fresh, *dots, inside):
        state.on(_SEGMENT, inside, last=Place.PATH)
        state.on(b"%", escape, last=Place.PATH)
        state.on(b"/", fresh, last=Place.PATH)
        state.on(b" ", version, first=Place.SPACE)
        state.on(b"?", query)
    if paths.merged:
        fresh.on(b"/", Verdict.BAD_TARGET)
    fresh.on(b".", dots[0], last=Place.PATH)
    dots[0].on(b".", dots[1], last=Place.PATH)
    for state in dots:
        state.on(b"/ ?", Verdict.DOT_SEGMENT if paths.normalised else Verdict.BAD_TARGET)
        state.on(b";", Verdict.BAD_TARGET)  # a dot segment to some, to Envoy since 1.40


def _escape(then: State, otherwise: Verdict) -> State:
    """%XX, unless a path with it is the same as one without: Envoy rewrites those, and the gate.

    %2F, %5C and %25 stay as they are and match as they stand: a port that has them otherwise
    (`HttpPort.escaped_slashes`) is the waypoint's.
    """
    start = State(otherwise)
    for high in _HEX:
        second = State(otherwise)
        for low in _HEX:
            byte = int(bytes([high, low]), 16)
            if (0x20 <= byte < 0x7F and byte not in _UNRESERVED) or byte >= 0x80:
                second.on([low], then, last=Place.PATH)
        if second.steps:
            start.on([high], second, last=Place.PATH)
    return start


def _query(version: State, parameters: Slots) -> State:
    """Parameters as they stand: a=1&b&c=. Of one whose name is asked for the value is noted."""
    names = Names(bytes(set(_QUERY) - set(b"&=")), Verdict.BAD_TARGET, fold=False)
    slots = {names.spell(name): place for name, place in parameters}
    values = {place: _parameter(names.root, version, place) for place in (0, *slots.values())}
    for state in (*names.named, names.other):
        place = slots.get(state, 0)
        state.on(b"=", values[place], bit=place)
        state.on(b"&", names.root, bit=place)
        state.on(b" ", version, bit=place, first=Place.SPACE)
    return names.root


def _parameter(root: State, version: State, place: int) -> State:
    start, inside = State(Verdict.BAD_TARGET), State(Verdict.BAD_TARGET)
    for state in (start, inside):
        state.on(_QUERY, inside, first=place if state is start else 0, last=place)
        state.on(b"&", root)
        state.on(b" ", version, first=Place.SPACE)
    return start


def _headers(headers: Slots) -> tuple[State, State]:
    """The lines after the first, each by its name, and the empty one that ends them.

    Also the state within all the values that matter to nobody.
    """
    names = Names(_TOKEN, Verdict.BAD_NAME, fold=True)
    line = names.root
    end = _line_end(line)
    anything = _anything(end)
    envoy = names.family()
    values: dict[State, tuple[State, int]] = {
        names.other: (anything, 0),
        envoy: (anything, Seen.ENVOY),
        names.spell(_ENVOY, family=envoy): (anything, Seen.ENVOY),
        names.spell("host"): (_host(end), Place.HOST),
        names.spell("content-length"): (_length(end), Place.LENGTH),
        names.spell("transfer-encoding"): (_encoding(end), Seen.CHUNKED),
        names.spell("connection"): (_connection(end), Seen.CONNECTION),
        names.spell("upgrade"): (anything, Seen.UPGRADE),
        names.spell("expect"): (anything, Seen.EXPECT),
    }
    values |= {names.spell(name): (anything, Seen.HOP) for name in _HOP}
    values |= {names.spell(name): (_noted(end, place), place) for name, place in headers}
    for state in names.named:
        value, bit = values.get(state, (anything, 0))
        state.on(b":", value, bit=bit, field=1)
    for state in (names.other, envoy):
        state.on(b":", values[state][0], bit=values[state][1], field=1)
    del line.steps[ord(":")]
    line.on(_BLANK, Verdict.FOLDED)
    line.on(b"\r", _line_end(READ))
    return line, anything


def _anything(end: State) -> State:
    """A value that matters to nobody here: any bytes that are no controls."""
    state = State(Verdict.BAD_VALUE)
    state.on(_ANY_VALUE, state)
    state.on(b"\r", end)
    state.on(b"\n", Verdict.LINE_END)
    return state


def _noted(end: State, place: int) -> State:
    """A value that routes depend on; blanks around it do not belong to it."""
    start, inside = State(Verdict.BAD_VALUE), State(Verdict.BAD_VALUE)
    visible = bytes(set(_VALUE) - set(_BLANK))
    start.on(visible, inside, first=place, last=place)
    inside.on(visible, inside, last=place)
    _blanks(start, start, end)
    _blanks(inside, inside, end)
    return start


def _blanks(state: State, to: State, end: State) -> None:
    """Blanks may follow, and the end of the line."""
    state.on(_BLANK, to)
    state.on(b"\r", end)
    state.on(b"\n", Verdict.LINE_END)


def _after(end: State, reason: Verdict) -> State:
    """Nothing but blanks up to the end of the line."""
    state = State(reason)
    _blanks(state, state, end)
    return state


def _host(end: State) -> State:
    """A name or an IPv4 address, or an IPv6 address in brackets; perhaps a port."""
    bad = Verdict.BAD_HOST
    start, name, six, closed, colon, port = (State(bad) for _ in range(6))
    after = _after(end, bad)
    both = Place.HOST
    letters = (ascii_letters + digits + "-._").encode()
    start.on(_BLANK, start)
    start.on(letters, name, first=both, last=both)
    start.on(b"[", six, first=both, last=both)
    name.on(letters, name, last=both)
    six.on(_HEX + b":.", six, last=both)
    six.on(b"]", closed, last=both)
    colon.on(digits.encode(), port, last=Place.AUTHORITY)
    port.on(digits.encode(), port, last=Place.AUTHORITY)
    for state in (name, closed, port):
        _blanks(state, after, end)
    for state in (name, closed):
        state.on(b":", colon)
    return start


def _length(end: State) -> State:
    start = State(Verdict.BAD_LENGTH)
    start.on(_BLANK, start)
    after, at = _after(end, Verdict.BAD_LENGTH), start
    for index in range(_LENGTH_DIGITS):
        more = State(Verdict.BAD_LENGTH)
        at.on(digits.encode(), more, first=0 if index else Place.LENGTH, last=Place.LENGTH)
        _blanks(more, after, end)
        at = more
    return start


def _encoding(end: State) -> State:
    """`chunked` and nothing else."""
    start = State(Verdict.BAD_ENCODING)
    start.on(_BLANK, start)
    at = start
    for letter in "chunked":
        more = State(Verdict.BAD_ENCODING)
        at.on(_either_case(letter), more)
        at = more
    _blanks(at, _after(end, Verdict.BAD_ENCODING), end)
    return start


def _connection(end: State) -> State:
    """Options between commas. One that is not known may be a header's name: Envoy takes that away."""
    names = Names(_TOKEN, Verdict.BAD_CONNECTION, fold=True)
    known = {names.spell(name): bit for name, bit in _CONNECTION.items()}
    between, after = names.root, State(Verdict.BAD_CONNECTION)
    for state, bit in known.items():
        state.on(b",", between, bit=bit)
        state.on(_BLANK, after, bit=bit)
        state.on(b"\r", end, bit=bit)
    after.on(b",", between)
    _blanks(after, after, end)
    between.on(_BLANK + b",", between)
    between.on(b"\r", end)
    return between


class Paths(NamedTuple):
    """What a port does to a path before it is matched.

    Attributes:
        normalised: what Envoy would rewrite is told by a verdict of its own; else it is refused.
        merged: two slashes become one: a path with two at once is refused.
    """

    normalised: bool = True
    merged: bool = False


AS_ISTIO = Paths()  # unless it is told otherwise


@lru_cache(maxsize=64)
def grammar(headers: Slots, parameters: Slots, paths: Paths = AS_ISTIO) -> bytes:
    """The automaton's moves, as struct kmesh_http_grammar has them.

    Args:
        headers: lower-case names of headers whose values are noted, and in which place.
        parameters: names of query parameters, likewise.
        paths: how the port has them.

    Raises:
        GrammarTooLargeError: it has no room for that many.
    """
    lines, dull = _headers(headers)
    first = _request_line(lines, parameters, paths)
    states = _reachable(first)
    rows = Rows(first=STOPS, width=256, limit=MOVES)
    try:
        numbers = {state: rows.place({0, *state.steps}) for state in states}
    except RowsFullError as error:
        raise GrammarTooLargeError("the names of headers and parameters are too many") from error
    moves = bytearray(MOVES * len(HttpMove(0, 0, 0, 0, 0, 0).pack()))
    _write(moves, 0, HttpMove(numbers[first], 0, 0, 0, 0, 0))
    _write(moves, 1, HttpMove(numbers[dull], 0, 0, 0, 0, 0))
    for state, number in numbers.items():
        _write(moves, number, HttpMove(state.reason, 0, 0, 0, 0, 0))
        for byte, step in state.steps.items():
            to = numbers[step.next] if isinstance(step.next, State) else int(step.next)
            _write(moves, number + byte, HttpMove(to, byte, *step[1:]))
    return bytes(moves)


def _write(moves: bytearray, index: int, move: HttpMove) -> None:
    packed = move.pack()
    moves[index * len(packed) : (index + 1) * len(packed)] = packed


def _reachable(first: State) -> list[State]:
    """States with the most steps first: those are the hardest to place."""
    found = {first: None}
    waiting = [first]
    while waiting:
        for step in waiting.pop().steps.values():
            if isinstance(step.next, State) and step.next not in found:
                found[step.next] = None
                waiting.append(step.next)
    return sorted(found, key=lambda state: -len(state.steps))
