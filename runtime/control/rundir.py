# SPDX-License-Identifier: Apache-2.0
"""What the daemon keeps below /run/kmesh: one instance's lock, its socket, and a note of what it made.

The note (`state.json`) is what `kmesh cleanup` goes by after a daemon was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import KmeshError

RUN_DIR = Path("/run/kmesh")
PINS = Path("/sys/fs/bpf/kmesh")

_OURS = (
    "kmesh.lock",
    "kmesh.sock",
    "cni.sock",
    "state.json",
    "state.new",
    "kmesh-compiled",
    "node-waypoint",
    "gate.sock",
    "gate.maps",
    "gate.sock.next",
    "gate.sock.maps",
    "gate.log",
)
_CAREFULLY = os.O_CLOEXEC | os.O_NOFOLLOW  # never through a link that somebody laid there


def default_run_dir() -> Path:
    """KMESH_RUN_DIR, else /run/kmesh."""
    return Path(os.environ.get("KMESH_RUN_DIR") or RUN_DIR)


def default_pins() -> Path:
    """KMESH_PINS, else /sys/fs/bpf/kmesh."""
    return Path(os.environ.get("KMESH_PINS") or PINS)


@dataclass(slots=True)
class Namespace:
    """A network namespace that is managed.

    Attributes:
        cookie: what the kernel calls it; never given twice.
        inode: what a path to it leads to; 0 where no path is known.
        path: the last path that was seen to lead there.
        holders: who wants it managed: 0 for good, else the process of a `kmesh exec`.
    """

    cookie: int
    inode: int = 0
    path: str = ""
    holders: list[int] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """What a running daemon has made that would outlive it, and on which boot of which kernel."""

    pid: int = 0
    pins: str = ""
    mode: str = "none"
    cgroups: list[str] = field(default_factory=list)
    namespaces: list[Namespace] = field(default_factory=list)
    boot: str = ""
    release: str = ""

    @property
    def of_this_boot(self) -> bool:
        """Whether what it names can still be there: cgroups and pins go with the kernel."""
        return not self.boot or self.boot == boot_id()


def boot_id() -> str:
    """Tells this boot of this kernel from every other (random(4))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class RunDir:
    """The directory of one instance.

    Args:
        path: made when it is not there, for its owner only. One that holds other things too is
            left as it is: what is ours in it is for the owner only anyway.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = path / "kmesh.sock"
        self.cni_socket = path / "cni.sock"
        self.compiled = path / "kmesh-compiled"  # unmistakably ours: it is removed with all in it
        self._state = path / "state.json"
        self._lock_file = path / "kmesh.lock"
        self._lock: int | None = None

    def make(self) -> None:
        """Raises: KmeshError: it cannot be made, or is another user's."""
        hint = "run as root, or choose another directory with --run-dir"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.geteuid():
                raise KmeshError(f"{self.path} belongs to another user", hint=hint)
            if all(_is_ours(entry) for entry in self.path.iterdir()):
                self.path.chmod(0o700)
        except OSError as error:
            raise KmeshError(f"cannot make {self.path}: {error.strerror}", hint=hint) from error

    def lock(self) -> None:
        """Take the lock for as long as this process lives.

        Raises:
            KmeshError: another process has it, or it cannot be made.
        """
        self.make()
        while not self._try_lock():
            pass  # the file was removed, by a daemon that ended, between opening and locking it

    def _try_lock(self) -> bool:
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o600)
        except OSError as error:
            raise KmeshError(f"cannot open {self._lock_file}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            hint = "end that one first, or give this one another --run-dir and --pins"
            raise KmeshError(
                f"a kmesh daemon runs already (process {holder or 'unknown'}, {self.path})",
                hint=hint,
            ) from None
        if not self._is_in_place(descriptor):
            os.close(descriptor)
            return False
        self._lock = descriptor
        with suppress(OSError):  # a full disk: the lock holds, and only its holder's name is lost
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return True

    def _is_in_place(self, descriptor: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), self._lock_file.stat())
        return False

    def write(self, state: State) -> None:
        """Replace the note, whole or not at all.

        Raises:
            KmeshError: it cannot be written.
        """
        draft = self._state.with_suffix(".new")
        try:
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(state), file)
            draft.replace(self._state)
        except OSError as error:
            raise KmeshError(f"cannot write {self._state}: {error.strerror}") from error

    def read(self) -> State | None:
        """The note, or None where there is none that can be read."""
        try:
            state = State(**json.loads(self._state.read_text()))
            state.namespaces = [Namespace(**each) for each in state.namespaces]  # type: ignore[arg-type]
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return state if _is_sound(state) else None

    def clear(self, *, note: bool = True) -> list[str]:
        """Remove everything of ours here, the lock last; returns what was removed. Idempotent.

        Without the lock nothing is: it belongs to another instance.

        Args:
            note: also the note; not where what it tells of is still there.
        """
        if self._lock is None:
            return []
        removed = []
        draft, caches = self._state.with_suffix(".new"), self.path.glob("*-cache.json*")
        notes = (draft, self._state) if note else (draft,)
        for path in (
            self.socket,
            self.cni_socket,
            *notes,
            *filter(_is_cache, caches),
            self._lock_file,
        ):
            with suppress(FileNotFoundError):
                path.unlink()
                removed.append(str(path))
        if self.compiled.is_dir():
            shutil.rmtree(self.compiled)
            removed.append(str(self.compiled))
        with suppress(OSError):  # not empty (somebody else's files), or not there
            self.path.rmdir()
            removed.append(str(self.path))
        self.unlock()
        return removed

    def unlock(self) -> None:
        """Give the lock back and leave everything in place. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_cache(path: Path) -> bool:
    """Whether it is what the prober keeps, or a draft of that."""
    kept = ("probe-cache.json", "objects-cache.json", "fields-cache.json")
    return path.name.lstrip(".").startswith(kept)


def _is_ours(path: Path) -> bool:
    return path.name in _OURS or _is_cache(path)


def _is_sound(state: State) -> bool:
    """Whether a note has the types that it should: a disk, or somebody, may have garbled it."""
    listed: list[Any] = state.cgroups if isinstance(state.cgroups, list) else [0]
    texts = [state.pins, state.mode, state.boot, state.release, *listed]
    numbers: list[Any] = [state.pid]
    for one in state.namespaces:
        texts.append(one.path)
        numbers += [one.cookie, one.inode]
        numbers += one.holders if isinstance(one.holders, list) else [""]
    sound = all(isinstance(text, str) for text in texts)
    return sound and all(isinstance(number, int) for number in numbers)
