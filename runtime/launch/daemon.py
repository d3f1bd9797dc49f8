# SPDX-License-Identifier: Apache-2.0
"""The daemon: everything that one `kmesh run` starts, and in which order it ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from runtime import log
from runtime.cluster.api import Api
from runtime.control.ahead import Ahead
from runtime.control.authorization import Authorization
from runtime.control.controller import Controller
from runtime.enrol.node import NodeReport, labels_of, write_features
from runtime.errors import KmeshError
from runtime.kernel.addresses import own_addresses
from runtime.kernel.authorize import GROUP, Authorizer
from runtime.kernel.datapath import DataPath
from runtime.kernel.netns import netns_cookie
from runtime.kernel.other_path import OtherPath, other_paths
from runtime.launch.accelerate import Acceleration
from runtime.launch.choose import PATHS, ImpossibleError
from runtime.launch.cluster import ClusterPart, connect
from runtime.launch.enhanced import HTTP_PATH, retire_others, routes_of, start_gate
from runtime.launch.instance import Instance, nameless, whereabouts
from runtime.launch.lastrun import LastRun, compare, recall, remember
from runtime.launch.managed import Governor, Managed
from runtime.launch.namespaces import OWN
from runtime.launch.on_demand import OnDemand
from runtime.launch.pods import Pods
from runtime.launch.responses import Responses
from runtime.launch.sources import find_source, told_address
from runtime.launch.start import start_best
from runtime.launch.verdict import Probing, judge
from runtime.model.mesh import IPAddress, NetworkAddress
from runtime.probe.mode import lacking
from runtime.server import api
from runtime.server.http import serve_tcp, serve_unix
from runtime.server.metrics import renderer
from runtime.server.source_metrics import SourceCollector
from runtime.server.waypoint_metrics import WaypointCollector
from runtime.tables.services import ServiceTables
from runtime.ui import count
from runtime.version import describe, package_version

_LOOK_SECONDS = 0.1  # between looks for namespaces in which policies must be enforced
_LOOK_SHARE = 20  # times as long as a look took: thousands of processes must not cost a processor

_log = log.get("launch")


class Daemon(Instance):
    """One instance, from its lock to its end."""

    def start(self, *, interruptible: Callable[[], AbstractContextManager[None]]) -> None:
        """Take the lock, answer requests, probe, and start the best path.

        Args:
            interruptible: wraps what takes long and may be broken off by an exception, which also
                comes when it should have come before.

        Raises:
            KmeshError: another instance runs, or nothing that is wanted can be started.
        """
        http = self._config.routes or self._config.mode == HTTP_PATH
        found = find_source(self._config.source, http=http, on_demand=self._config.on_demand)
        self._whereabouts = whereabouts(self._config, cluster=found.cluster, network=found.network)
        if self._config.cluster:
            self._api = connect()
        self._dir.lock()
        before = recall(self._config.state_dir, note=self._dir.read())
        overrides = self._config.overrides
        self._probing = Probing(overrides=overrides, in_child=self._dir.unlock)
        self._serve()
        self._source = Ahead(found.open)
        _log.info("options InitDaemonConfig successful")
        self._phase = "probing the kernel"
        scratch = self._dir.compiled
        try:
            self._judged = judge(
                self._config.mode,
                overrides=overrides,
                scratch=scratch,
                probing=self._probing,
                interruptible=interruptible,
            )
        except ImpossibleError:
            self._remember(before, "none")
            raise
        with interruptible():
            pass
        self._version = describe(self._judged.objects)
        self._phase = "starting the data path"
        self._started = start_best(self._judged.paths, self._open_path)
        self._remember(before, self._started.name)
        if self._started.name == HTTP_PATH:
            self._source.want_http()
            self._responses = self._choose_way(self._started.path)
        self._acceleration = self._accelerate(self._started.path)
        self._observe(self._acceleration, name=self._started.name)
        self._start_waypoint(self._source)
        if self._config.on_demand:
            self._ask_on_demand(self._source, network=found.network or "")
        self._managed = Managed(
            self._telemetry,
            name=self._started.name,
            pins=self._config.pins,
            directory=self._dir,
            lock=self._lock,
            cookie_of=partial(netns_cookie, objects=self._judged.objects),
        )
        self._authorization = self._authorize()
        _log.info("bpf Start successful: the %s path serves", self._started.name)

    def _start_waypoint(self, source: Ahead) -> None:
        assert self._started is not None
        serves = self._started.name
        why_not = "" if serves == HTTP_PATH else f"the {serves} path has no gate that would use it"
        config = self._config
        self._node_waypoint.start(source, run_dir=config.run_dir, node=config.node, why_not=why_not)

    def _ask_on_demand(self, source: Ahead, *, network: str) -> None:
        """Raises: KmeshError: nothing tells of connections, so nothing would ever be asked for."""
        telemetry = self._telemetry.status()
        if not telemetry["on"]:
            raise KmeshError(
                f"--on-demand needs telemetry, which is off: {telemetry['reason']}",
                hint="without --on-demand the whole mesh is held",
            )
        self._telemetry.also = OnDemand(
            ask=lambda address: source.demand(NetworkAddress(address, network)),
            release=lambda address: source.release(NetworkAddress(address, network)),
        ).take

    def _remember(self, before: LastRun | None, mode: str) -> None:
        """Say what has changed since the last run here, and leave word for the next."""
        report = self._judged.report if self._judged else None
        now = LastRun.now(mode, build=report.facts.build_id if report else "")
        self._change = compare(before, now, reasons=report.mode.reasons if report else ())
        remember(self._config.state_dir, now)

    def _authorize(self) -> Authorization:
        """Policies guard this process's network namespace, and those of managed processes."""
        assert self._judged is not None
        objects, pins = self._judged.objects, self._config.pins
        assert objects is not None

        reason = lacking(self._judged.report.findings, GROUP)

        def open_authorizer() -> Authorizer:
            if reason:
                raise KmeshError(f"policies cannot be enforced on this kernel: {reason}")
            return Authorizer.open(objects, pins=pins)

        return Authorization(
            open_authorizer,
            adopt=Authorizer.is_pinned(pins),
            place=self._whereabouts.place,
            own_addresses=self._own_addresses,
            namespaces=self._managed.namespaces if self._managed else list,
        )

    def _own_addresses(self) -> frozenset[IPAddress]:
        """Where health checks come from: kubelet's have an address of the node's."""
        if not self._config.exempt_node:
            return frozenset()
        return own_addresses() | told_address(os.environ)

    def _accelerate(self, path: DataPath) -> Acceleration:
        assert self._judged is not None
        assert self._judged.objects is not None
        return Acceleration(
            path,
            objects=self._judged.objects,
            pins=self._config.pins,
            findings=self._judged.report.findings,
            wanted=self._config.acceleration,
            name=self._started.name if self._started else "compat",
        )

    def _choose_way(self, path: DataPath) -> Responses:
        assert self._judged is not None
        assert self._judged.objects is not None
        return Responses(
            path,
            objects=self._judged.objects,
            findings=self._judged.report.findings,
            wanted=self._config.responses,
        )

    def _observe(self, governor: Governor, *, name: str) -> None:
        assert self._judged is not None
        assert self._judged.objects is not None
        self._telemetry.start(
            governor,
            objects=self._judged.objects,
            pins=self._config.pins,
            path=name,
            findings=self._judged.report.findings,
            wanted=self._config.telemetry,
        )

    def _serve(self) -> None:
        source = SourceCollector(self._view.summary)
        metrics = renderer(
            self.status,
            source,
            self._telemetry.counters,
            self._telemetry.http.metrics,
            WaypointCollector(self._node_waypoint.status),
        )
        telling = api.routes(self, metrics=metrics)
        self._servers += [
            serve_unix(self._dir.socket, {**telling, **api.control_routes(self)}),
            serve_tcp(self._config.status_address, telling),
            serve_tcp(
                self._config.metrics_address,
                {("GET", "/status/metric"): lambda _request: api.metrics_reply(metrics)},
                loopback_only=False,  # numbers, for a Prometheus elsewhere
            ),
        ]
        for server in self._servers:
            _log.info("listening on %s", server.where)

    def _open_path(self, name: str) -> DataPath:
        if self._judged is None or self._judged.objects is None:
            raise KmeshError("there are no compiled objects")
        path = DataPath.open(self._judged.objects, pins=self._config.pins, path=name)
        if name == HTTP_PATH:
            self._http = start_gate(
                path,
                objects=self._judged.objects,
                run_dir=self._config.run_dir,
                namespaces=lambda: self._managed.namespaces() if self._managed else [OWN],
            )
        return path

    async def serve(self, stop: asyncio.Event) -> None:
        """Bring the source's picture into the kernel until told to stop."""
        source = self._source
        assert source is not None
        self._phase = f"waiting for the first whole picture from {source.name}"
        assert self._started is not None
        path = self._started.path
        controller = Controller(
            source,
            tables=ServiceTables(place=self._whereabouts.place, existing=path.contents()),
            kernel=path,
            view=self._view,
            lock=self._lock,
            on_synced=self._on_synced,
            authorization=self._authorization,
            whereabouts=self._whereabouts,
        )
        controller.opens = self._config.http_policies == "clients"
        self._view.on_update = self._telemetry.learn
        if self._http:
            self._http.waypoint = lambda: self._node_waypoint.announced
            path.waits = True  # for its routes: without them services would be balanced past them
            gate = self._http.socket
            if self._authorization:
                self._authorization.requests_are_judged = True
            controller.routes = routes_of(
                path,
                gate=gate,
                seen=self._telemetry.http,
                has_waypoint=lambda: self._node_waypoint.follows_http,
                nameless=nameless(self._config),
            )
        aside = [
            asyncio.create_task(self._telemetry.run()),
            asyncio.create_task(self._telemetry.http.run()),
            asyncio.create_task(self._keep_guarding()),
        ]
        if self._http:
            aside.append(asyncio.create_task(self._http.keep()))
        work = asyncio.create_task(controller.run())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait({work, told}, return_when=asyncio.FIRST_COMPLETED)
        self._phase = "stopping"
        self._ready_after = None
        for task in (told, work, *aside):
            task.cancel()
        ended = await asyncio.gather(work, told, *aside, return_exceptions=True)
        if isinstance(ended[0], Exception):  # a fault of ours: the daemon must not look alive
            raise ended[0]

    async def _keep_guarding(self) -> None:
        """A managed process may enter a network namespace of its own at any time."""
        took = 0.0
        while True:
            await asyncio.sleep(max(_LOOK_SECONDS, _LOOK_SHARE * took))
            if self._authorization and self._authorization.is_needed:
                began = time.monotonic()
                await asyncio.to_thread(self._follow)
                took = time.monotonic() - began

    def _on_synced(self) -> None:
        took = time.monotonic() - self._began
        _log.info(
            "controller Start successful: %s, %s in the kernel after %.2f s",
            count(len(self._view.services), "service"),
            count(len(self._view.workloads), "workload"),
            took,
        )
        assert self._started is not None
        assert self._managed is not None
        try:
            with self._lock:
                self._started.path.turn_over()
        except KmeshError as error:
            _log.error("what ran before goes on until the next change: %s", error)
        retire_others(
            self._started.name,
            self._managed,
            pins=self._config.pins,
            run_dir=self._config.run_dir,
        )
        self._ready_after = took  # not while another path decides too
        if self._api is not None and self._cluster is None:
            self._join_cluster(self._api)

    def _join_cluster(self, api: Api) -> None:
        """Pods are enrolled from here on: what they connect to is in the kernel."""
        assert self._managed is not None
        assert self._judged is not None
        assert self._started is not None
        config, report = self._config, self._judged.report
        verdicts = {each.capability: str(each.verdict) for each in report.findings}
        labels = labels_of(
            mode=self._started.name, version=package_version(), capabilities=verdicts
        )
        node = NodeReport(api, node=config.node, labels=labels, complaint=self._complaint())
        if config.nfd_features:
            try:
                write_features(config.nfd_features, labels)
            except KmeshError as error:
                _log.warning("%s", error)
        self._cluster = ClusterPart(
            api,
            node=config.node,
            kernel=Pods(self._managed, self._authorization, self._http, lock=self._lock),
            report=node,
        )
        self._cluster.start(
            socket=self._dir.cni_socket,
            bin_dir=config.cni_bin,
            conf_dir=config.cni_conf,
            on_host=config.cni_socket,
        )

    def _complaint(self) -> str:
        """Why less runs than was asked for, or than the kernel could; "" for nothing."""
        told = [f"{each['path']} failed to start: {each['reason']}" for each in self._demotions()]
        assert self._judged is not None
        assert self._started is not None
        if self._started.name != PATHS[0]:
            told += self._judged.report.mode.reasons
        return f"mode {self._started.name}: {'; '.join(told)}" if told else ""

    def _end_what_is_ahead(self) -> None:
        for ahead in (self._probing, self._source):
            if ahead is not None:
                ahead.close()

    @property
    def took_over(self) -> bool:
        """Whether an earlier daemon's data path, which was serving, is in this one's hands."""
        return self._started is not None and (
            self._started.path.was_serving or bool(self._others())
        )

    def _others(self) -> list[OtherPath]:
        """The paths of earlier modes, which are there until this one is whole."""
        return other_paths(self._config.pins, self._started.name if self._started else "")

    def stop(self, *, keep: bool) -> None:
        """End everything: servers, data path (unless it is to be kept), files. Idempotent."""
        self._phase, self._ready_after = "stopping", None
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._node_waypoint.stop(keep=keep)
        self._end_what_is_ahead()
        if self._cluster is not None:
            self._cluster.stop(keep=keep)
            self._cluster = None
        if self._started is None:
            self._dir.clear(note=False)  # of a daemon that was killed: `kmesh cleanup` goes by it
        elif keep:
            path = self._started.path
            if self._others() and not path.was_serving:
                self._give_way(path)
            else:
                self._leave(path)
        else:
            self._remove(self._started.path)
        self._started = None

    def _give_way(self, path: DataPath) -> None:
        """Remove a path that was never whole; the one of the mode before serves on."""
        self._let_go()
        if self._http:
            self._http.destroy()
        path.destroy()
        self._dir.unlock()
        _log.info(
            "stopped; the data path of before stays pinned at %s and serves", self._config.pins
        )

    def _let_go(self) -> None:
        self._telemetry.close()
        if self._authorization:
            self._authorization.close()
        if self._acceleration:
            self._acceleration.close()

    def _leave(self, path: DataPath) -> None:
        """Let go of what serves on, for the next daemon."""
        self._let_go()
        path.close()
        self._dir.unlock()
        _log.info("stopped; the data path stays pinned at %s and serves", self._config.pins)

    def _remove(self, path: DataPath) -> None:
        self._telemetry.destroy()
        if self._authorization:
            self._authorization.destroy()
        Authorizer.remove(self._config.pins)  # of an earlier process, where not taken over
        if self._acceleration:
            self._acceleration.destroy()
        if self._http:
            self._http.destroy()
        for other in self._others():
            other.remove()
        path.destroy()
        if self._managed:
            self._managed.dissolve()
        self._dir.clear()
        _log.info("stopped; everything attached and pinned is removed")
