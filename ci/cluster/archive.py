# SPDX-License-Identifier: Apache-2.0
"""Images without a registry: an archive as `docker save` writes them, for containerd to import."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from runtime.process import run

PAUSE = "localhost/kmesh-pause:1"
_PAUSE_SOURCE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void)
{
	signal(SIGINT, end);
	signal(SIGTERM, end);
	signal(SIGCHLD, reap);
	for (;;)
		pause();
}
"""


def pause_image(scratch: Path) -> Path:
    """The image that holds a pod's namespaces: one static program that waits."""
    source, program = scratch / "pause.c", scratch / "pause"
    source.write_text(_PAUSE_SOURCE)
    run(["cc", "-static", "-Os", "-s", "-o", str(program), str(source)])
    archive = scratch / "pause.tar"
    write_image(archive, PAUSE, {"pause": program.read_bytes()}, entrypoint=["/pause"])
    return archive


def write_image(target: Path, name: str, files: dict[str, bytes], *, entrypoint: list[str]) -> None:
    """Write an image of one layer.

    Args:
        target: the archive.
        name: repository and tag.
        files: programs by their path.
        entrypoint: what it runs.
    """
    layer = _tar(files, mode=0o755)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entrypoint},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    whole = {
        f"{digest}.json": config,
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    target.write_bytes(_tar(whole, mode=0o644))


def _tar(files: dict[str, bytes], *, mode: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
