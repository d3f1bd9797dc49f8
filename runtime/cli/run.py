# SPDX-License-Identifier: Apache-2.0
"""`kmesh run`: the daemon."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from runtime import log, ui
from runtime.cli.options import pins_option, run_dir_option
from runtime.launch.choose import MODES
from runtime.launch.config import Config
from runtime.launch.lastrun import STATE_DIR, default_state_dir


def _port_pairs(
    _context: click.Context, _parameter: click.Parameter, text: str
) -> tuple[tuple[int, int], ...]:
    """From "15008:15019,..." to pairs of ports."""
    pairs: dict[int, int] = {}
    for part in text.split(",") if text not in ("", "none") else ():
        numbers = [int(each) if each.isdecimal() else 0 for each in part.strip().split(":")]
        if len(numbers) != 2 or not all(0 < each < 0x10000 for each in numbers):
            raise click.BadParameter(f"{part!r} is no pair of ports such as 15008:15019")
        if numbers[0] in pairs:
            raise click.BadParameter(f"port {numbers[0]} is named twice")
        pairs[numbers[0]] = numbers[1]
    return tuple(pairs.items())


@click.command()
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    envvar="KMESH_MODE",
    show_envvar=True,
    help="The best path that this kernel runs, or the one to insist on.",
)
@click.option(
    "--source",
    required=True,
    envvar="KMESH_SOURCE",
    show_envvar=True,
    metavar="KIND:WHERE",
    help="Where Services come from. files:DIR: Kubernetes YAML in a directory, watched. "
    "istiod, istiod:HOST:PORT: Istiod's workload API (TLS; plaintext on port 15010). "
    "kubernetes: Services, EndpointSlices and HTTPRoutes straight from the API server, without Istio.",
)
@click.option(
    "--keep-datapath",
    is_flag=True,
    envvar="KMESH_KEEP_DATAPATH",
    show_envvar=True,
    help="When the daemon ends, leave programs and maps pinned and serving, for the next to adopt. "
    "Without this everything is removed.",
)
@click.option(
    "--node",
    envvar="NODE_NAME",
    show_envvar=True,
    default=socket.gethostname,
    show_default="the host's name",
    help="This node's name, for services that prefer endpoints on their own node.",
)
@click.option(
    "--locality",
    envvar="KMESH_LOCALITY",
    show_envvar=True,
    default="",
    metavar="REGION/ZONE/SUBZONE",
    help="Where this node is, for services that prefer near endpoints. Without it: as its own "
    "workloads say.",
)
@click.option(
    "--acceleration/--no-acceleration",
    default=None,
    envvar="KMESH_ACCELERATION",
    show_envvar=True,
    help="Short-cut connections within this node past TCP, or do not. Without either: where every "
    "check that the prober made of it passed.",
)
@click.option(
    "--responses",
    type=click.Choice(["auto", "gate", "kernel"]),
    default="auto",
    show_default=True,
    envvar="KMESH_RESPONSES",
    show_envvar=True,
    help="Which way responses go home on the enhanced path: by the gate, over TCP; or small ones within the "
    "kernel, past it. auto: within the kernel only where that hurts no client; kernel: also where some would "
    "be (`kmesh probe` says which, and why).",
)
@click.option(
    "--telemetry/--no-telemetry",
    default=True,
    show_default=True,
    envvar="KMESH_TELEMETRY",
    show_envvar=True,
    help="Count the connections of managed workloads (kmesh_tcp_… at --metrics-address), and write "
    "them down when told to (kmeshctl monitoring --accesslog on). Where the kernel lacks what that "
    "takes it is off, and `kmeshctl status` says why.",
)
@click.option(
    "--exempt-node/--no-exempt-node",
    default=True,
    show_default=True,
    envvar="KMESH_EXEMPT_NODE",
    show_envvar=True,
    help="Let connections from this node's own addresses pass every authorization policy: kubelet's "
    "health checks come from there, and so does what runs in the node's own network.",
)
@click.option(
    "--http-policies",
    type=click.Choice(["strict", "clients"]),
    default="strict",
    show_default=True,
    envvar="KMESH_HTTP_POLICIES",
    show_envvar=True,
    help="Connections to this node's workloads that an ALLOW policy with conditions on HTTP guards. strict: none is let in by it, "
    "as what it will carry is not known. clients: one from a workload of the mesh is, if some request from there may be; "
    "which do pass is left to the client's node, so every such client must be governed by an enhanced path.",
)
@click.option(
    "--routes",
    is_flag=True,
    envvar="KMESH_ROUTES",
    show_envvar=True,
    help="Follow HTTP routes (Istiod's ADS) also where no path here needs them: `kmeshctl routes` then "
    "tells where each would run.",
)
@click.option(
    "--waypoint-ports",
    default="15008:15019",
    show_default=True,
    envvar="KMESH_WAYPOINT_PORTS",
    show_envvar=True,
    metavar="NAMED:PORT",
    callback=_port_pairs,
    help="Connect to a waypoint at another port than it is named with: Istio names that for HBONE, a tunnel which is "
    "not spoken here, and its own waypoints take our PROXY header at 15019 once l7-envoyfilter.yaml is applied. "
    "Several pairs with commas; none: always the port that is named.",
)
@click.option(
    "--on-demand",
    is_flag=True,
    envvar="KMESH_ON_DEMAND",
    show_envvar=True,
    help="Hold of Istiod's mesh only what managed workloads connect to, for small nodes of a large "
    "mesh. The first connection to an address goes as it would without Kmesh; later ones are "
    "governed. The first policy has the whole mesh held, as it may be about anyone.",
)
@click.option(
    "--node-waypoint",
    default="off",
    show_default=True,
    envvar="KMESH_NODE_WAYPOINT",
    show_envvar=True,
    metavar="[off|auto|external|ENVOY]",
    help="Have an Envoy on this node do what the enhanced path does not, as Istiod tells it: by the path "
    "of its program, auto for the one that is installed, or external where another starts it, with "
    "RUN-DIR/node-waypoint/bootstrap.json. It takes the source istiod, or files with what Istiod sent.",
)
@click.option(
    "--ignore-bug",
    "overrides",
    multiple=True,
    envvar="KMESH_IGNORE_BUG",
    show_envvar=True,
    metavar="BUG",
    help="Use what a known kernel bug forbids, since your vendor fixed it (see `kmesh probe`).",
)
@click.option(
    "--status-address",
    default="127.0.0.1:15200",
    show_default=True,
    help="Loopback address of /version, /debug/ready, /debug/probe, /debug/config_dump.",
)
@click.option(
    "--metrics-address",
    default="127.0.0.1:15020",
    show_default=True,
    envvar="KMESH_METRICS_ADDRESS",
    show_envvar=True,
    help="Address of /status/metric, for Prometheus; nothing else is served there.",
)
@click.option(
    "--cluster/--no-cluster",
    default=False,
    show_default=True,
    envvar="KMESH_CLUSTER",
    show_envvar=True,
    help="Govern this node's pods as their labels say (istio.io/dataplane-mode=kmesh), serve the CNI "
    "plugin, and label the node with what was found out about it.",
)
@click.option(
    "--cni-bin",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="KMESH_CNI_BIN",
    show_envvar=True,
    help="The host's directory of CNI plugins (/opt/cni/bin): kmesh-cni is installed there.",
)
@click.option(
    "--cni-conf",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="KMESH_CNI_CONF",
    show_envvar=True,
    help="The host's directory of CNI configuration (/etc/cni/net.d): kmesh-cni is chained there.",
)
@click.option(
    "--cni-socket",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KMESH_CNI_SOCKET",
    show_envvar=True,
    help="The daemon's socket by its path on the host, where that is another than in here.",
)
@click.option(
    "--nfd-features",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="KMESH_NFD_FEATURES",
    show_envvar=True,
    help="features.d of Node Feature Discovery: mode and capabilities are written there too.",
)
@click.option(
    "--log-level",
    type=click.Choice(log.LEVELS),
    default="info",
    show_default=True,
    envvar="KMESH_LOG_LEVEL",
    show_envvar=True,
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_state_dir,
    show_default=f"{STATE_DIR}, or KMESH_STATE_DIR",
    help="Where the kernel and the mode of this run are remembered, so that a change after a reboot is "
    "said aloud. Used where it is there; never made.",
)
@run_dir_option
@pins_option
def run(  # noqa: PLR0913 - one argument an option
    *,
    mode: str,
    source: str,
    keep_datapath: bool,
    node: str,
    locality: str,
    acceleration: bool | None,
    responses: str,
    telemetry: bool,
    waypoint_ports: tuple[tuple[int, int], ...],
    on_demand: bool,
    cluster: bool,
    cni_bin: Path | None,
    cni_conf: Path | None,
    cni_socket: Path | None,
    nfd_features: Path | None,
    exempt_node: bool,
    http_policies: str,
    routes: bool,
    node_waypoint: str,
    overrides: tuple[str, ...],
    status_address: str,
    metrics_address: str,
    log_level: str,
    run_dir: Path,
    pins: Path,
    state_dir: Path,
) -> None:
    """Probe this kernel, choose the best path that it runs, and serve it until ended.

    What was chosen, and why, is in the first lines of the log, at /debug/probe and in `kmeshctl
    status`. /debug/ready answers 200 once the kernel has everything that the source described.
    SIGTERM and Ctrl-C end it and remove all that it attached and pinned (but see --keep-datapath);
    after a kill -9, `kmesh cleanup` does that.

    \b
    Example:
      kmesh run --source files:/etc/kmesh/services
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from runtime.launch.lifecycle import run_daemon

    log.setup("debug" if ui.debugging() else log_level)
    run_daemon(
        Config(
            mode=mode,
            source=source,
            run_dir=run_dir.absolute(),
            pins=pins.absolute(),
            status_address=status_address,
            metrics_address=metrics_address,
            keep_datapath=keep_datapath,
            overrides=frozenset(overrides),
            node=node,
            locality=locality,
            acceleration=acceleration,
            responses=responses,
            telemetry=telemetry,
            waypoint_ports=waypoint_ports,
            on_demand=on_demand,
            cluster=cluster,
            cni_bin=cni_bin,
            cni_conf=cni_conf,
            cni_socket=cni_socket,
            nfd_features=nfd_features,
            exempt_node=exempt_node,
            http_policies=http_policies,
            state_dir=state_dir.absolute(),
            routes=routes,
            node_waypoint=node_waypoint,
        )
    )
