# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates and a kubeconfig for one short-lived cluster."""

from __future__ import annotations

from pathlib import Path

from runtime.process import run

TOKEN = "kmesh-cluster-admin"  # noqa: S105 - of a server that listens in its own namespace only


def make(directory: Path, *, addresses: list[str]) -> None:
    """Make a CA, the API server's certificate for some addresses, and the service accounts' key."""
    directory.mkdir(exist_ok=True)
    names = ",".join(
        [*(f"IP:{each}" for each in addresses), "DNS:localhost", "DNS:kubernetes.default.svc"]
    )
    (directory / "extensions").write_text(f"subjectAltName={names}\n")
    for command in (
        ("genrsa", "-out", "sa.key", "2048"),
        ("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"),
        (
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=kmesh-cluster"),
        ),
        (
            *("req", "-newkey", "rsa:2048", "-nodes"),
            *("-keyout", "api.key", "-out", "api.csr", "-subj", "/CN=kube-apiserver"),
        ),
        (
            *(
                "x509",
                "-req",
                "-in",
                "api.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
            ),
            *("-out", "api.crt", "-days", "30", "-extfile", "extensions"),
        ),
    ):
        run(["openssl", *command], cwd=directory)
    (directory / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')


def kubeconfig(path: Path, *, server: str, authority: Path) -> None:
    """Write the administrator's kubeconfig."""
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters: [{{name: kmesh, cluster: {{server: "{server}", certificate-authority: {authority}}}}}]
users: [{{name: admin, user: {{token: {TOKEN}}}}}]
contexts: [{{name: kmesh, context: {{cluster: kmesh, user: admin}}}}]
current-context: kmesh
"""
    )
    path.chmod(0o600)
