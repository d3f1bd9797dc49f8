# SPDX-License-Identifier: Apache-2.0
"""`kmesh-build`: build the images, tell what would be built, look into objects."""

from __future__ import annotations

import click

from runtime import ui

_COMMANDS = {
    "images": (
        "builder.commands.images:images",
        "Build the images, then probe this host with one.",
    ),
    "plan": ("builder.commands.plan:plan", "Tell what `images` would do, and why."),
    "objects": ("builder.commands.objects:objects", "Compile the BPF objects and check them."),
    "host": ("builder.commands.host:host", "Make objects and an image for this host's kernel."),
    "inspect": ("builder.commands.inspect:inspect", "Tell what an object is made of and needs."),
    "matrix": ("builder.commands.matrix:matrix", "Judge a fleet's kernels from their files."),
    "engine": ("builder.commands.engine:engine", "Start, stop or look at the private engine."),
}


@click.group(
    cls=ui.LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@ui.debug_option
def kmesh_build() -> None:
    """The image pipeline: three images from one command.

    \b
      kmesh-build plan                    what would be built on which base, and why
      kmesh-build images --tag latest     build generic, enhanced and compile image
      kmesh-build inspect OBJECT          what a compiled object needs of a kernel
      kmesh-build host                    objects and an image for exactly this host's kernel
      kmesh-build matrix DIR              which mode each kernel of a fleet gets, what to change
      kmesh-build engine start            a private Docker engine, to run the images with
    """  # noqa: D301 - \b is click's mark for "do not wrap"


def main() -> None:
    """Run the command line."""
    ui.main(kmesh_build, name="kmesh-build")


if __name__ == "__main__":
    main()
