# SPDX-License-Identifier: Apache-2.0
"""The daemon's part in a Kubernetes cluster: pods are enrolled, the CNI plugin served, the node described."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime import log
from runtime.cluster.api import Api
from runtime.cni.install import Installation
from runtime.cni.server import CniServer
from runtime.enrol.annotate import Annotator
from runtime.enrol.enrolment import Enrolment, Kernel
from runtime.enrol.node import NodeReport
from runtime.enrol.places import Namespaces, PodCgroups
from runtime.enrol.runner import Runner
from runtime.errors import KmeshError
from runtime.objects.locate import plugin_program

_log = log.get("cluster")


def connect() -> Api:
    """The API server: this pod's, or on a node without pods the kubeconfig's.

    Raises:
        ApiError: there is neither.
    """
    from runtime.cluster.client import Cluster

    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return Cluster.inside()
    return Cluster.by_kubeconfig()


class ClusterPart:
    """Everything between the daemon and its cluster but the source.

    Args:
        api: the API server.
        node: this node's name.
        kernel: takes pods in.
        after: called after each change of who is governed.
        report: labels and a possible complaint, for the node.
    """

    def __init__(
        self,
        api: Api,
        *,
        node: str,
        kernel: Kernel,
        after: Callable[[], object],
        report: NodeReport,
    ) -> None:
        self._says = Annotator(api)
        enrolment = Enrolment(
            kernel=kernel,
            says=self._says,
            namespaces_of_node=Namespaces(),
            cgroups=PodCgroups.of_this_node(),
        )
        self._runner = Runner(enrolment, api=api, node=node, after=after)
        self._report = report
        self._server: CniServer | None = None
        self._installation: Installation | None = None

    def start(
        self, *, socket: Path, bin_dir: Path | None, conf_dir: Path | None, on_host: Path | None
    ) -> None:
        """Begin to enrol pods; where the host's directories are given, also install the CNI plugin.

        Raises:
            KmeshError: the plugin's socket cannot be made.
        """
        self._runner.start()
        self._report.start()
        self._server = CniServer(socket, self._runner.on_cni)
        if bin_dir and conf_dir:
            try:
                program = plugin_program()
            except KmeshError as error:
                _log.warning("the CNI plugin is not installed: %s", error)
                return
            self._installation = Installation(
                program, bin_dir=bin_dir, conf_dir=conf_dir, socket=on_host or socket
            )
            self._installation.keep()

    def not_ready(self) -> str:
        """Why pods are not as their labels say; "" when they are."""
        return self._runner.not_ready()

    def status(self) -> Mapping[str, Any]:
        installed = self._installation.trouble if self._installation else "not wanted"
        return {**self._runner.status(), "cni": installed or "installed"}

    def pods(self) -> list[Mapping[str, Any]]:
        return self._runner.describe()

    def stop(self, *, keep: bool) -> None:
        """End; pods stay in or out as they are. Idempotent.

        Args:
            keep: another daemon will follow: plugins are to wait for it.
        """
        if self._installation is not None:
            self._installation.stop()
            self._installation = None
        if self._server is not None:
            self._server.close(remove=not keep)
            self._server = None
        self._report.stop()
        self._runner.stop()
        self._says.stop()
