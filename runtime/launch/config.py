# SPDX-License-Identifier: Apache-2.0
"""What `kmesh run` is told on its command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.launch.lastrun import STATE_DIR


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one daemon.

    Attributes:
        mode: "auto", or the path to insist on.
        source: KIND:WHERE.
        run_dir: lock, socket, state.
        pins: a directory of a bpffs.
        status_address: loopback ADDRESS:PORT.
        metrics_address: ADDRESS:PORT.
        keep_datapath: leave everything attached and pinned when the daemon ends.
        overrides: known bugs that the user vouches for.
        node: this node's name, for services that prefer or insist on their own node.
        acceleration: short-cut sockets of this node: on, off, or None for where nobody can be hurt.
        waypoint_ports: for a port that Istio names for its waypoints, the one to connect to instead.
        routes: follow HTTP routes from the start; without it, as soon as a path serves that needs them.
        on_demand: hold of the mesh only what managed workloads connect to.
        node_waypoint: off, auto, external, or the path of an Envoy: what the path does not do goes there.
        telemetry: follow connections, for metrics and the access log.
        responses: auto, gate, kernel: which way responses go home on the enhanced path.
        exempt_node: let this node's own addresses pass policies, as health checks come from there.
        http_policies: strict, or clients: connections that ALLOW policies with conditions on HTTP may let in are
            taken to be judged by their clients' nodes.
        locality: region/zone/subzone of this node, as far as known.
        cluster: enrol this node's pods, and tell the cluster what was found out about the node.
        nfd_features: features.d of Node Feature Discovery; None to write nothing there.
        cni_bin, cni_conf: the host's directories of the CNI, for the plugin; None to leave it out.
        cni_socket: the daemon's socket for the plugin by its path on the host; None: as here.
        state_dir: where the mode is remembered over reboots, if that directory is there.
    """

    mode: str
    source: str
    run_dir: Path
    pins: Path
    status_address: str
    metrics_address: str
    keep_datapath: bool = False
    overrides: frozenset[str] = frozenset()
    node: str = ""
    locality: str = ""
    acceleration: bool | None = None
    responses: str = "auto"
    telemetry: bool = True
    on_demand: bool = False
    cluster: bool = False
    cni_bin: Path | None = None
    cni_conf: Path | None = None
    cni_socket: Path | None = None
    nfd_features: Path | None = None
    exempt_node: bool = True
    http_policies: str = "strict"
    state_dir: Path = STATE_DIR
    routes: bool = False
    node_waypoint: str = "off"
    waypoint_ports: tuple[tuple[int, int], ...] = ((15008, 15019),)
