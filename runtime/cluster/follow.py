# SPDX-License-Identifier: Apache-2.0
"""Following a kind of objects: a list, then a watch from there on, for ever.

The protocol is https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes:
a watch that ends is taken up at the last version seen (bookmarks keep that fresh); a version that the
server has forgotten (410 Gone) means to list again, and what was missed is told by the list being whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime import log
from runtime.cluster.api import Api, ApiError

PAGE = 500
_WATCH_SECONDS = (240, 480)  # at random, so that all nodes' watches do not end together
_WAIT_SECONDS = (0.5, 1, 2, 5, 10, 30)

_log = log.get("cluster")


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects that there are: what is not among them is gone."""

    objects: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """An object is new, or other than it was; or gone, and was last like this."""

    object: Mapping[str, Any]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """The server cannot be reached or refuses: the picture may be old from here on."""

    error: ApiError


Event = Listed | Changed | Trouble


def follow(
    api: Api,
    path: str,
    *,
    wait: Callable[[float], bool],
    **query: str | int,
) -> Iterator[Event]:
    """Follow the objects at a path until told to stop.

    Args:
        api: the server.
        path: of a kind of objects.
        wait: waits so many seconds, and tells whether to stop.
        query: selectors.
    """
    failures = 0
    version = ""
    while not wait(0):
        try:
            if not version:
                objects, version = _list(api, path, query)
                yield Listed(objects)
            for event in _watch(api, path, version, query):
                failures = 0
                version = event.version or version
                if event.change is not None:
                    yield event.change
        except ApiError as error:
            if error.is_expired:
                _log.debug("%s: version %s is gone: listing again", path, version)
                version = ""
            else:
                # A kind that went: what comes back has a history of its own. Who may not read it may have
                # let go of what was there.
                if error.is_missing or error.status == 403:
                    version = ""
                yield Trouble(error)
            failures += 1
        # What nobody thought of, be it a fault of ours: a follower that ended would say nothing any more.
        except Exception as error:  # noqa: BLE001
            _log.debug("%s cannot be followed", path, exc_info=True)
            version = ""
            yield Trouble(ApiError(f"{path}: cannot be followed ({type(error).__name__}: {error})"))
            failures += 1
        # A server that ends every watch at once must not be asked in a tight loop.
        if wait(_pause(failures) if failures else 0.05):
            return


def _pause(failures: int) -> float:
    most = _WAIT_SECONDS[min(failures, len(_WAIT_SECONDS)) - 1]
    return random.uniform(most / 2, most)  # noqa: S311 - spreads requests, guards nothing


def _list(
    api: Api, path: str, query: Mapping[str, str | int]
) -> tuple[tuple[Mapping[str, Any], ...], str]:
    """Page by page. A page that expired in between fails the list: it is begun again."""
    objects: list[Mapping[str, Any]] = []
    following = ""
    while True:
        more = {"continue": following} if following else {}
        page = api.get(path, **query, limit=PAGE, **more)
        objects += page.get("items") or ()
        metadata = page.get("metadata") or {}
        following = metadata.get("continue") or ""
        if not following:
            return tuple(objects), str(metadata.get("resourceVersion") or "")


@dataclass(frozen=True, slots=True)
class _Seen:
    version: str
    change: Changed | None = None


def _watch(api: Api, path: str, version: str, query: Mapping[str, str | int]) -> Iterator[_Seen]:
    seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311
    more: dict[str, str | int] = {
        "resourceVersion": version,
        "timeoutSeconds": seconds,
        "allowWatchBookmarks": "true",
    }
    for event in api.events(path, **(dict(query) | more)):
        kind, about = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            message = about.get("message") or "the watch failed"
            raise ApiError(f"watch of {path}: {message}", status=int(about.get("code") or 500))
        seen = str((about.get("metadata") or {}).get("resourceVersion") or "")
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            yield _Seen(seen, Changed(about, gone=kind == "DELETED"))
        else:  # a bookmark, or what a later server may say
            yield _Seen(seen)
