# SPDX-License-Identifier: Apache-2.0
"""`kmesh`: probe this kernel, run its best path, run a command in it, clean up."""

from __future__ import annotations

import click

from runtime import ui

_COMMANDS = {
    "run": ("runtime.cli.run:run", "Probe this kernel, choose a path and serve it."),
    "probe": ("runtime.cli.probe:probe", "Tell what this kernel can run, and why not more."),
    "exec": ("runtime.cli.exec:exec_", "Run a command as a managed workload."),
    "cleanup": ("runtime.cli.cleanup:cleanup", "Remove everything that a killed daemon left."),
    "uninstall": ("runtime.cli.uninstall:uninstall", "Take Kmesh out of a cluster, every node."),
    "version": ("runtime.cli.version:version", "Show versions of Kmesh and what it loads."),
}


@click.group(
    cls=ui.LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@ui.debug_option
def kmesh() -> None:
    """Kmesh: a service mesh data plane in the kernel, with no sidecar.

    \b
    Try it on a machine with no cluster:
      kmesh probe                          what this kernel can run
      kmesh run --source files:DIR         serve the Services described in DIR
      kmesh exec -- curl http://10.96.0.10 a command whose connections are governed
      kmeshctl status                      what the daemon does
    """  # noqa: D301 - \b is click's mark for "do not wrap"


def main() -> None:
    ui.main(kmesh, name="kmesh")


if __name__ == "__main__":
    main()
