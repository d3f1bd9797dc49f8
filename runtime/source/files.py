# SPDX-License-Identifier: Apache-2.0
"""`--source files:DIR`: Kubernetes YAML and recorded xDS responses in a directory, watched for changes.

What cannot be accepted is reported and its last good version keeps serving, be it a whole file
or one object of it. Each update holds only what changed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import log
from runtime.errors import KmeshError
from runtime.source.directory import Directory, Scan
from runtime.source.kubernetes_join import Changes, Identity, Join
from runtime.source.kubernetes_yaml import Parsed, parse_text
from runtime.source.update import Rejection, Update

if TYPE_CHECKING:
    from runtime.source.files_http import Beyond

Resources = Mapping[str, Mapping[str, bytes]]
Follower = Callable[[Resources], object]
_JOINED = ("Service", "EndpointSlice", "Pod")
_SETTLE_MS = 50  # a file that is being written is left alone for so long
_RESCAN_MS = 2000  # for file systems, and links out of the directory, that announce no change

_log = log.get("source.files")


class FilesSource:
    """A directory as a source of services and workloads.

    Args:
        directory: where the files are; subdirectories count.

    Raises:
        KmeshError: it is no directory.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise KmeshError(
                f"no directory {directory} to read Services from",
                hint="give the directory with your Kubernetes YAML: --source files:DIR",
            )
        self.name = f"files:{directory}"
        self._directory = Directory(directory)
        self._state = State()
        self._followers: list[Follower] = []
        self._recorded: Resources = {}
        self._told: Resources | None = None

    def want_http(self) -> None:
        """Tell of HTTP also where there is none: what an earlier daemon left in the kernel then goes."""
        self._state.wants_http = True

    def follow_resources(self, follower: Follower) -> None:
        """Call it, in the loop of the source, with the recorded resources, and again when these change.

        They are an Envoy's: type URL → name → message. What HTTPRoutes say is not among them.
        """
        self._followers.append(follower)
        if self._told is not None:
            follower(self._told)

    def _tell(self) -> None:
        if self._recorded != self._told:
            self._told = self._recorded
            for follower in self._followers:
                follower(self._recorded)

    def origins(self) -> dict[str, str]:
        """The files that each resource is from. May be called from any thread."""
        return self._state.origins(self._directory.path)

    async def updates(self) -> AsyncIterator[Update]:
        """The whole picture first, then changes as they happen; never ends by itself."""
        first = await asyncio.to_thread(self._poll)
        self._tell()
        yield first
        async for _ in self._wakeups():
            update = await asyncio.to_thread(self._poll)
            self._tell()
            if update is not None and update != Update():
                yield update

    async def _wakeups(self) -> AsyncIterator[None]:
        """Come back whenever something happened below the directory, or might have."""
        from watchfiles import awatch

        while True:
            try:
                changes = awatch(
                    self._directory.path,
                    watch_filter=None,
                    step=_SETTLE_MS,
                    rust_timeout=_RESCAN_MS,
                    yield_on_timeout=True,
                )
                async for _ in changes:
                    yield
            # The directory is gone, inotify's limit is reached, a file's name is no text: watching
            # only saves time, and whatever is wrong with it must not end the daemon.
            except Exception as error:  # noqa: BLE001
                _log.debug("cannot watch %s (%s): looking every 2 s", self._directory.path, error)
            await asyncio.sleep(_RESCAN_MS / 1000)
            yield

    def _poll(self) -> Update:
        try:
            update = self._state.take(self._directory.scan())
            self._recorded = self._state.resources()
            return update  # noqa: TRY300 - what it takes from the directory is above
        except OSError as error:
            return self._state.lost(f"{self._directory.path}", error.strerror or str(error))


class State:
    """What all files say together, and what of it cannot be accepted."""

    def __init__(self) -> None:
        self._files: dict[str, Parsed] = {}
        self._definers: defaultdict[Identity, set[str]] = defaultdict(set)
        self._repeated: set[Identity] = set()
        self._join = Join()
        self._beyond: Beyond | None = None  # from the first object on that is more than services
        self.wants_http = False
        self._rejected: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._complete = False

    def take(self, scan: Scan) -> Update:
        """Take the files that changed; the first time, the update is the whole picture."""
        self._lost.clear()
        touched: set[Identity] = set()
        for file in scan.removed:
            touched |= self._replace(file, Parsed())
            del self._files[file]
        for file, text in scan.texts.items():
            touched |= self._replace(file, self._parse(file, text))
        for file, payload in scan.binaries.items():
            touched |= self._replace(file, _recording(file, payload))
        for file, reason in scan.unreadable.items():
            unreadable = Parsed(rejected={file: reason}, whole=False)
            touched |= self._replace(file, unreadable)
        objects = {identity: self._winner(identity) for identity in touched}
        joined = {each: objects.pop(each) for each in touched if each[0] in _JOINED}
        changes = self._join.apply(joined)
        begins = self._beyond is None and (objects or self.wants_http)
        if begins:
            from runtime.source.files_http import Beyond

            self._beyond = Beyond(self._join)
        if self._beyond is None:
            return self._update(changes)
        return self._with_http(self._beyond, objects, changes, begins=bool(begins))

    def _with_http(
        self, beyond: Beyond, objects: Mapping[Identity, Any], changes: Changes, *, begins: bool
    ) -> Update:
        policies = beyond.take(objects, changes)
        update = self._update(changes)
        changed = begins or objects or update.services or update.removed_services
        if changed or update.workloads or update.removed_workloads:
            update = replace(update, http=beyond.http())
        return replace(
            update,
            policies=tuple(policy for policy in policies.values() if policy),
            removed_policies=tuple(name for name, policy in policies.items() if not policy),
        )

    def lost(self, directory: str, reason: str) -> Update:
        """The directory cannot be read: what it said last still holds."""
        self._lost = {directory: f"cannot be read ({reason}); what it said last still holds"}
        return self._update(Changes())

    def resources(self) -> Resources:
        """The bytes of what is recorded and in force: type URL → name → message."""
        if self._beyond is None:
            return {}
        from runtime.source.recorded import TYPES

        found: dict[str, dict[str, bytes]] = {type_url: {} for type_url in TYPES.values()}
        for identity, definers in self._definers.items():
            if identity[0] in TYPES and definers:
                payload = self._files[min(definers)].payloads[identity]
                found[TYPES[identity[0]]][identity[2]] = payload
        return found

    def origins(self, directory: Path) -> dict[str, str]:
        """The files that each resource is from, by its name."""
        files: defaultdict[str, set[str]] = defaultdict(set)
        for identity, definers in list(self._definers.items()):
            used = min(definers, default="")
            for resource in self._resources(identity) if used else ():
                files[resource].add(str(directory / used))
        return {resource: ", ".join(sorted(names)) for resource, names in files.items()}

    def _resources(self, identity: Identity) -> list[str]:
        if identity[0] in _JOINED or self._beyond is None:
            return self._join.resources(identity)
        return self._beyond.names(identity)

    def _parse(self, file: str, text: str) -> Parsed:
        parsed = parse_text(text, file=file)
        for kind in sorted(parsed.unknown - self._unknown):
            _log.info("%s: kind %s is not read here and is passed over", file, kind)
        self._unknown |= parsed.unknown
        return parsed

    def _replace(self, file: str, parsed: Parsed) -> set[Identity]:
        """Put a file's new content in place of its old; returns the objects that this concerns."""
        earlier = self._files.get(file, Parsed())
        before = earlier.manifests
        for identity, manifest in before.items():
            if identity in parsed.instead and identity in earlier.instead:
                continue  # neither is a good version: the new one says why
            if identity in parsed.bad or not parsed.whole:
                kept = parsed.manifests.setdefault(identity, manifest)
                if kept is manifest and identity in earlier.payloads:
                    parsed.payloads[identity] = earlier.payloads[identity]
                if kept is manifest and identity in earlier.instead:
                    parsed.instead[identity] = manifest
        parsed.instead = {
            identity: one
            for identity, one in parsed.instead.items()
            if parsed.manifests.setdefault(identity, one) is one
        }
        self._files[file] = parsed
        for identity in before.keys() - parsed.manifests.keys():
            self._definers[identity].discard(file)
        for identity in parsed.manifests:
            self._definers[identity].add(file)
        touched = before.keys() | parsed.manifests.keys()
        self._repeated -= touched
        self._repeated |= {identity for identity in touched if len(self._definers[identity]) > 1}
        return touched

    def _winner(self, identity: Identity) -> Any:
        """Of several files that define an object, the first by name decides."""
        definers = self._definers[identity]
        if not definers:
            del self._definers[identity]
            return None
        return self._files[min(definers)].manifests[identity]

    def _update(self, changes: Changes) -> Update:
        rejected = self._all_rejected()
        new = [item for item in rejected.items() if self._rejected.get(item[0]) != item[1]]
        gone = self._rejected.keys() - rejected.keys()
        self._rejected = rejected
        complete = not self._complete and not self._lost
        self._complete |= complete
        return Update(
            services=tuple(s for s in changes.services.values() if s),
            workloads=tuple(w for w in changes.workloads.values() if w),
            removed_services=tuple(k for k, s in changes.services.items() if not s),
            removed_workloads=tuple(k for k, w in changes.workloads.items() if not w),
            rejections=tuple(Rejection(resource=name, reason=why) for name, why in new),
            accepted=tuple(sorted(gone)),
            complete=complete,
        )

    def _all_rejected(self) -> dict[str, str]:
        rejected = dict(self._lost)
        for parsed in self._files.values():
            rejected |= parsed.rejected
        for identity in self._repeated:
            kind, namespace, name = identity
            files = self._definers[identity]
            for file in sorted(files)[1:]:
                reason = f"is in {min(files)} already; this one is not used"
                of = f"{namespace}/{name}" if namespace else name
                rejected[f"{file} ({kind} {of})"] = reason
        return rejected


def _recording(file: str, payload: bytes) -> Parsed:
    from runtime.source.recorded import parse_recording

    return parse_recording(payload, file=file)
