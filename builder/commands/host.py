# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build host`: what the compile image does without arguments."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.commands.options import HUB
from runtime import ui
from runtime.errors import KmeshError

if TYPE_CHECKING:
    from builder.checkout import Checkout
    from builder.host.evidence import Target


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/out"),
    show_default=True,
    help="Where everything goes.",
)
@click.option(
    "--target-kernel", metavar="RELEASE", default="", help="A kernel that is not this one."
)
@click.option(
    "--btf",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The BTF of that kernel (its /sys/kernel/btf/vmlinux).",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The configuration of that kernel.",
)
@click.option(
    "--os", "os_name", default="", help="What to call the distribution in the image's name."
)
@click.option("--hub", default=HUB, show_default=True, help="What stands before the image's name.")
@click.option("--tag", default="latest", show_default=True, help="What its tag begins with.")
@click.option("--no-image", is_flag=True, help="Objects and packages only.")
@click.option("--deb", is_flag=True, help="A .deb of the objects too.")
@click.option("--rpm", is_flag=True, help="A .rpm of the objects too.")
@click.option("--fresh", is_flag=True, help="Compile, also where prebuilt objects would do.")
@ui.output_option
def host(  # noqa: PLR0913 - one argument an option
    *,
    out: Path,
    target_kernel: str,
    btf: Path | None,
    config: Path | None,
    os_name: str,
    hub: str,
    tag: str,
    no_image: bool,
    deb: bool,
    rpm: bool,
    fresh: bool,
    output: str,
) -> None:
    """Make objects, packages and an image for exactly this host's kernel, or for another.

    Takes the best that the host offers: prebuilt objects that load as they are, its BTF, its headers
    in /sys/kernel, installed headers, and last the headers packaged here. What was made is checked by
    the kernel's verifier where that may be asked, else by names. With /var/run/docker.sock mounted
    the image is loaded. Ends with 0 only where there is a usable result.

    \b
      docker run --rm -v $PWD/out:/out -v /lib/modules:/lib/modules:ro -v /usr/src:/usr/src:ro \\
          ghcr.io/kmesh-net/kmesh-build
      kmesh-build host --out out --target-kernel 6.1.0-18-amd64 --btf vmlinux.btf --deb --no-image
    """  # noqa: D301 - \b is click's mark for "do not wrap"
    from builder.host.deliver import Wanted, write_failure
    from builder.host.reasons import HostError

    if btf is not None and not target_kernel:
        raise click.UsageError("--btf is of another kernel: say which with --target-kernel")
    target = _target(target_kernel, btf=btf, config=config, os_name=os_name)
    wanted = Wanted(hub=hub, tag=tag, image=not no_image, deb=deb, rpm=rpm)
    try:
        manifest = _make(target, out, wanted=wanted, fresh=fresh)
    except HostError as error:
        write_failure(out, error)
        _fail(error)
    _show(manifest, out, output)


def _fail(error: Any) -> None:
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    sys.exit(error.reason.status)


def _target(release: str, *, btf: Path | None, config: Path | None, os_name: str) -> Target:
    from dataclasses import replace

    from builder.host.evidence import this_host

    target = this_host(os_name=os_name, release=release)
    return replace(
        target,
        running=target.running and btf is None,
        btf=btf or target.btf,
        config=config or target.config,
    )


def _make(target: Target, out: Path, *, wanted: Any, fresh: bool) -> dict[str, Any]:
    from builder.host.deliver import deliver, require_writable
    from builder.host.image import require_compile_image
    from builder.host.make import make_for
    from runtime.objects.locate import sources_dir

    def say(text: str) -> None:
        click.echo(text, err=True)

    require_writable(out)
    if wanted.image:
        require_compile_image()
    say(f"kernel {target.release} ({target.machine}), {target.os}")
    with tempfile.TemporaryDirectory(prefix="kmesh-host-") as name:
        scratch = Path(name)
        made = make_for(
            target,
            sources=sources_dir(),
            prebuilt=None if fresh else _prebuilt(),
            out=scratch / "objects",
            scratch=scratch,
            say=say,
        )
        return deliver(
            made,
            target,
            out=out,
            scratch=scratch,
            checkout=_checkout(),
            wanted=wanted,
            say=say,
        )


def _prebuilt() -> Path | None:
    from runtime.objects.locate import objects_dir

    try:
        return objects_dir()
    except KmeshError:
        return None


def _checkout() -> Checkout:
    """What this is built from; an image knows its commit by its environment."""
    from dataclasses import replace

    from builder.checkout import find_root, read_checkout

    found = read_checkout(find_root())
    commit = os.environ.get("KMESH_COMMIT")
    return replace(found, revision=commit) if commit else found


def _show(manifest: dict[str, Any], out: Path, output: str) -> None:
    if output == "json":
        ui.print_json(manifest)
        return
    evidence, verified = manifest["evidence"], manifest["verified"]
    click.echo(f"objects    {len(manifest['objects'])} in {out}, {evidence['kind']}")
    click.echo(f"verified   {verified['how']}; they do for: {', '.join(verified['paths'])}")
    if image := manifest.get("image"):
        loaded = f", loaded by {image['loaded_by']}" if image["loaded_by"] else ""
        click.echo(f"image      {image['reference']} ({image['archive']}){loaded}")
    for package in manifest["packages"]:
        click.echo(f"package    {package['path']}")
