# SPDX-License-Identifier: Apache-2.0
"""What the commands share in how they speak: tables, JSON, errors, and lazily loaded commands.

Tables fit the terminal; in a pipe they are as wide as COLUMNS says, or 120 characters. Scripts take JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtime.errors import KmeshError
from runtime.tabular import lay_out

if TYPE_CHECKING:  # rich takes long to import, and JSON and --help need none of it
    from rich.console import Console

_PIPE_WIDTH = 120
_NARROWEST = 40
_Command = TypeVar("_Command", bound=Callable[..., Any])


def output_option(function: _Command) -> _Command:
    """Give a command `--output table|json`, as its argument `output`."""
    choice = click.Choice(["table", "json"])
    return click.option(
        "--output",
        "-o",
        type=choice,
        default="table",
        show_default=True,
        help="For people (table) or machines (json).",
    )(function)


def console(*, stderr: bool = False) -> Console:
    """A console for standard output or error, as wide as the terminal or a pipe."""
    from rich.console import Console

    return Console(stderr=stderr, width=_width(), highlight=False, soft_wrap=False)


def _width() -> int:
    """Characters of a line: COLUMNS, or the terminal's, or a pipe's."""
    return max(shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns, _NARROWEST)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    beneath: Collection[str] = (),
) -> None:
    """Print rows under column heads, wrapped to fit.

    Args:
        columns: their names.
        rows: a cell for each column.
        beneath: columns of sentences, which go beneath their row where they cannot be read beside it.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    rule = "─" if encoding.lower().startswith("utf") else "-"
    lines = lay_out(columns, rows, width=_width(), beneath=beneath, rule=rule)
    is_head = True
    for line in lines:
        is_head = is_head and not line.startswith(rule)
        click.echo(click.style(line, bold=True) if is_head else line)


def print_json(data: Any) -> None:
    """Print data as JSON, indented, keys in the order given."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def host_port(address: str, port: object) -> str:
    """As URLs write it: 10.0.0.1:80, [fd00::1]:80."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Give a number with its noun: "1 service", "2 services", "2 policies"."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


class LazyGroup(click.Group):
    """A command group that imports a subcommand only when it is called: `--help` stays fast.

    Args:
        lazy: subcommand → ("module:attribute", its one line of help).
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self._lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self._short_help(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _short_help(self, ctx: click.Context, name: str) -> str:
        if name in self._lazy:
            return self._lazy[name][1]
        command = super().get_command(ctx, name)
        return command.get_short_help_str(limit=70) if command else ""


def main(command: click.Command, *, name: str) -> None:
    """Run a command line to its end: a user's mistake is one line and a hint, and status 1 (2 for usage).

    The traceback of a KmeshError comes with `--debug` as the first argument, or KMESH_DEBUG=1.
    """
    try:
        status = command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Abort:
        status = 130
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except KmeshError as error:
        status = _report(error)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # the reader of our output left: `kmesh probe | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:  # of the host: nothing that a traceback would explain
        status = _report(KmeshError(f"the system refused: {error}", hint="--debug tells where"))
    sys.exit(status if isinstance(status, int) else 0)


def _report(error: KmeshError) -> int:
    if debugging():
        traceback.print_exception(error)
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return 1


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get("KMESH_DEBUG", "") not in ("", "0")


def debug_option(function: _Command) -> _Command:
    """Give a group `--debug`: tracebacks for errors, and debug log lines."""

    def _set(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
        if value:
            os.environ["KMESH_DEBUG"] = "1"

    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set,
        help="Show tracebacks of errors, and log from the debug level.",
    )(function)
