# SPDX-License-Identifier: Apache-2.0
"""Numbers that the tables and bpf/include/kmesh/http/types.h must agree on; a test compares them."""

from __future__ import annotations

from enum import IntEnum

HEAD_MAX = 8192  # bytes of a head
FIELDS_MAX = 100  # lines after its first
STOPS = 64  # states of a grammar below this are verdicts
READ = 63
MOVES = 32768
END, ABSENT = 0, 1  # what stands for the end of a value, and for one that is not there
DECIDED = 64
NO_ROUTE, NO_VHOST, NO_IDEA = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


class Verdict(IntEnum):
    """Why a head was not routed: enum kmesh_http_verdict."""

    OK = 0
    INCOMPLETE = 1
    MALFORMED = 2
    TOO_LONG = 3
    BAD_METHOD = 4
    BAD_TARGET = 5
    DOT_SEGMENT = 6
    ESCAPE = 7
    VERSION = 8
    LINE_END = 9
    BAD_NAME = 10
    BAD_VALUE = 11
    FOLDED = 12
    BAD_HOST = 13
    NO_HOST = 14
    TWICE = 15
    BAD_LENGTH = 16
    BAD_ENCODING = 17
    TWO_LENGTHS = 18
    BAD_CONNECTION = 19
    NO_TABLE = 20
    UNDECIDED = 21
    MANY_FIELDS = 22


class Place(IntEnum):
    """What the spans of a head are of: KMESH_HTTP_HOST and so on."""

    NOWHERE = 0
    HOST = 1
    AUTHORITY = 2
    METHOD = 3
    PATH = 4
    TARGET = 5
    LENGTH = 6
    SPACE = 7
    SLOT = 16


SLOTS = 16


class Seen(IntEnum):
    """Bits of kmesh_http_head.seen beside those of the places."""

    CHUNKED = 32
    CONNECTION = 33
    CLOSE = 34
    KEEP_ALIVE = 35
    UPGRADE = 36
    EXPECT = 37
    HOP = 38
    ENVOY = 39


PLACES = 32
# KMESH_HTTP_ONCE
ONCE = 0xFFFFFFFE | 1 << Seen.CHUNKED | 1 << Seen.CONNECTION
