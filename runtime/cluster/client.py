# SPDX-License-Identifier: Apache-2.0
"""The official client of Kubernetes: the only module that imports it.

It brings credentials (a service account's, which rotate, or a kubeconfig's with its plugins), TLS,
proxies and retries. Objects stay plain JSON: its models would multiply the memory that a large
cluster's objects take, and refuse fields that they do not know.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3.exceptions
from kubernetes import client, config
from kubernetes.stream import portforward, stream

from runtime.cluster.api import ApiError, Json

_ANSWER_SECONDS = (5, 30)  # to connect, and for each read
_QUIET_SECONDS = 60  # that a watch may take longer than the server was told to end it after
_PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Cluster:
    """An API server as the official client reaches it; implements `Api`."""

    def __init__(self, configuration: client.Configuration) -> None:
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # failures are told by their callers
        configuration.retries = False  # a caller knows what may be tried again, and when
        self._client = client.ApiClient(configuration)
        self.server = str(configuration.host)

    @classmethod
    def inside(cls) -> Cluster:
        """With the pod's service account.

        Raises:
            ApiError: this is no pod, or it has no service account.
        """
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise ApiError(
                f"no service account of a pod here: {error}",
                hint="outside of a cluster, name a kubeconfig (KUBECONFIG)",
            ) from error
        return cls(configuration)

    @classmethod
    def by_kubeconfig(cls, path: Path | None = None, *, context: str | None = None) -> Cluster:
        """With a user's kubeconfig: the file named, $KUBECONFIG or ~/.kube/config.

        Raises:
            ApiError: it cannot be used.
        """
        configuration = client.Configuration()
        try:
            config.load_kube_config(
                str(path) if path else None, context=context, client_configuration=configuration
            )
        except (config.ConfigException, OSError, ValueError) as error:
            raise ApiError(
                f"the kubeconfig cannot be used: {error}",
                hint="name one with --kubeconfig, or in KUBECONFIG",
            ) from error
        return cls(configuration)

    # Requests.

    def get(self, path: str, **query: str | int) -> Any:
        return self._json("GET", path, query)

    def events(self, path: str, **query: str | int) -> Iterator[Any]:
        """A watch's events; the library's urllib3 response is read line by line."""
        quiet = int(query.get("timeoutSeconds", 300)) + _QUIET_SECONDS
        response = self._send("GET", path, {**query, "watch": "true"}, read=quiet)
        try:
            for line in _lines(response):
                yield json.loads(line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiError(f"watch of {path}: {_in_words(error)}") from error
        finally:
            response.close()

    def patch(self, path: str, body: Json, *, kind: str = "merge") -> Any:
        apply: dict[str, str | int] = {"fieldManager": "kmesh", "force": "true"}
        return self._json("PATCH", path, apply if kind == "apply" else {}, body, _PATCHES[kind])

    def post(self, path: str, body: Json) -> Any:
        return self._json("POST", path, {}, body)

    def delete(self, path: str, **query: str | int) -> Any:
        return self._json("DELETE", path, query)

    def _json(
        self,
        method: str,
        path: str,
        query: dict[str, str | int],
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Any:
        response = self._send(method, path, query, body, content_type)
        try:
            return json.loads(response.read() or b"null")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiError(f"{method} {path}: {_in_words(error)}") from error
        finally:
            response.release_conn()

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str | int],
        body: Json | None = None,
        content_type: str = "application/json",
        *,
        read: int = _ANSWER_SECONDS[1],
    ) -> Any:
        headers = {"Accept": "application/json", "User-Agent": "kmesh"}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            # Also renews a token that its file, or a plugin, has a newer one of.
            self._client.update_params_for_auth(
                headers, [], ["BearerToken"], path, method, body, request_auth=None
            )
            url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
            answer = self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=(_ANSWER_SECONDS[0], read)
            )
            response = answer.response
            refused = not 200 <= response.status < 300
            told = response.read() if refused else b""
        except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(
                f"the API server at {self.server} does not answer: {_in_words(error)}"
            ) from error
        if refused:
            response.release_conn()
            raise _refusal(method, path, status=response.status, told=told)
        return response

    def run_in(self, namespace: str, pod: str, argv: Sequence[str]) -> str:
        """Run a command in a pod's container, to its end; gives what it prints.

        Raises:
            ApiError: it cannot be run, or fails; then with what it says.
        """
        core = client.CoreV1Api(
            client.ApiClient(self._client.configuration)
        )  # its calls become websockets
        try:
            run = stream(
                core.connect_get_namespaced_pod_exec, pod, namespace, command=list(argv),
                stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False,
            )  # fmt: skip
            run.run_forever(timeout=_ANSWER_SECONDS[1])
            out, errors = run.read_stdout(timeout=0), run.read_stderr(timeout=0)
            status = run.returncode
            run.close()
        except (client.ApiException, ValueError) as error:
            reason = str(getattr(error, "reason", error)).split(" -+-+- ", 1)[0]
            raise ApiError(f"exec in {namespace}/{pod}: {reason}") from error
        if status != 0:
            said = (errors or out or "it does not end").strip()
            raise ApiError(f"exec in {namespace}/{pod}: {' '.join(argv)}: {said}")
        return str(out)

    def port_forward(self, namespace: str, pod: str, port: int) -> socket.socket:
        """A connection to a port on a pod's loopback, through the API server and the kubelet.

        Raises:
            ApiError: it cannot be made.
        """
        core = client.CoreV1Api(self._client)
        try:
            made = portforward(
                core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port)
            )
            connection = made.socket(port)
        except client.ApiException as error:
            reason = str(error.reason).split(" -+-+- ", 1)[0]  # then come headers and the body
            raise ApiError(f"port-forward to {namespace}/{pod}:{port}: {reason}") from error
        connection.setblocking(True)
        result: socket.socket = connection
        return result


def _lines(response: Any) -> Iterator[bytes]:
    """Lines as they come; what is cut off by the end of the stream is none."""
    rest = b""
    for part in response.stream(amt=1 << 16, decode_content=True):
        *whole, rest = (rest + part).split(b"\n")
        yield from filter(None, whole)


def _refusal(method: str, path: str, *, status: int, told: bytes) -> ApiError:
    reason = told.decode(errors="replace").strip()[:200] or f"status {status}"
    with suppress(ValueError, KeyError, TypeError):
        reason = json.loads(told)["message"]
    hint = "its role may lack this verb" if status == 403 else None
    return ApiError(f"{method} {path}: {reason}", status=status, hint=hint)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]
