# SPDX-License-Identifier: Apache-2.0
"""What the plugin hands over, and what it is told: the protocol on the Unix socket.

A request is lines `NAME=VALUE` of the plugin's environment (CNI_COMMAND, CNI_NETNS, …), ended by an
empty line. The answer is `ok`, or an error of the CNI specification as JSON, and the end of the stream.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import KmeshError

LARGEST = 1 << 16
OK = b"ok\n"
_TRY_AGAIN, _INTERNAL = 11, 999  # https://www.cni.dev/docs/spec/#error


class RequestError(KmeshError):
    """A request that cannot be understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CniRequest:
    """One call of the plugin.

    Attributes:
        command: ADD, DEL or CHECK.
        container: the sandbox's id.
        netns: the file of its network namespace; None where DEL is called without.
        namespace, pod, uid: of the pod; "" where the runtime is not Kubernetes'.
    """

    command: str
    container: str
    netns: Path | None
    namespace: str = ""
    pod: str = ""
    uid: str = ""

    @classmethod
    def parse(cls, data: bytes) -> CniRequest:
        """Read a request. Raises: RequestError."""
        try:
            lines = data.decode("utf-8").split("\n\n", 1)[0].splitlines()
        except UnicodeDecodeError as error:
            raise RequestError("the request is no text") from error
        given = dict(line.partition("=")[::2] for line in lines)
        command = given.get("CNI_COMMAND", "")
        if command not in ("ADD", "DEL", "CHECK"):
            raise RequestError(f"no command {command!r}")
        netns = given.get("CNI_NETNS", "")
        if (netns and not netns.startswith("/")) or (not netns and command != "DEL"):
            raise RequestError(f"CNI_NETNS={netns!r} is no path")
        pairs = (item.partition("=")[::2] for item in given.get("CNI_ARGS", "").split(";"))
        arguments = dict(pairs)
        return cls(
            command=command,
            container=given.get("CNI_CONTAINERID", ""),
            netns=_visible(netns) if netns else None,
            namespace=arguments.get("K8S_POD_NAMESPACE", ""),
            pod=arguments.get("K8S_POD_NAME", ""),
            uid=arguments.get("K8S_POD_UID", ""),
        )


def _visible(netns: str) -> Path:
    """Debian's /var/run is a link to /run; the daemon's container has only the latter."""
    return (
        Path("/run") / netns.removeprefix("/var/run/")
        if netns.startswith("/var/run/")
        else Path(netns)
    )


def failure(message: str, *, details: str = "", again: bool = False) -> bytes:
    """An error as the plugin prints it."""
    code = _TRY_AGAIN if again else _INTERNAL
    error = {
        "cniVersion": "1.0.0",
        "code": code,
        "msg": f"kmesh-cni: {message}",
        "details": details,
    }
    return json.dumps(error).encode() + b"\n"
