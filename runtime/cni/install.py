# SPDX-License-Identifier: Apache-2.0
"""The plugin on the node: its binary, its place in the chain, kept there against other tools, and removed.

Every file is replaced in one step: a runtime that reads at any moment finds the old or the new one whole.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runtime import log
from runtime.cni.conflist import LISTS, PLUGIN, ConflistError, chosen, with_plugin, without_plugin
from runtime.errors import KmeshError

_SAVED = ".kmesh-saved"  # of a single plugin's file, which a list of ours has taken the place of
_LOOK_SECONDS = 5.0  # also where inotify says nothing
_SETTLE_MS = 100

_log = log.get("cni")


class Installation:
    """The plugin's files on one node.

    Args:
        binary: the program, as it comes with the image.
        bin_dir: where the runtime looks for plugins.
        conf_dir: where it looks for its configuration.
        socket: the daemon's, by its path on the host.
    """

    def __init__(self, binary: Path, *, bin_dir: Path, conf_dir: Path, socket: Path) -> None:
        self._binary = binary
        self._bin_dir = bin_dir
        self._conf_dir = conf_dir
        self._socket = socket
        self._told: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def install(self) -> bool:
        """Put the binary and the configuration in their places, where they are not yet.

        Returns:
            whether anything had to be written.

        Raises:
            KmeshError: it cannot be written, or the configuration cannot be understood.
        """
        try:
            copied = self._copy()
            return self._chain() or copied
        except OSError as error:
            raise KmeshError(f"cannot install {PLUGIN}: {error}", hint=_HINT) from error

    def keep(self) -> None:
        """Install, and again whenever another tool has rewritten something, until `stop`."""
        self._thread = threading.Thread(target=self._keep, name="cni-install", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Keep watch no longer; what is installed stays. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None

    @property
    def trouble(self) -> str:
        """Why it is not installed; "" when it is."""
        return "not installed yet" if self._told is None else self._told

    def _keep(self) -> None:
        self._try()
        for _ in self._changes():
            if self._stop.is_set():
                return
            self._try()

    def _try(self) -> None:
        try:
            wrote = self.install()
        except KmeshError as error:
            if self._told != str(error):
                _log.warning("%s", error)
            self._told = str(error)
            return
        if wrote:
            _log.info("%s is installed, last in the chain of %s", PLUGIN, self._chosen())
        self._told = ""

    def _changes(self) -> Iterator[None]:
        """Come back when something changed in the directory, and now and then."""
        from watchfiles import watch

        while not self._stop.is_set():
            with suppress(Exception):  # no such directory yet, inotify's limit: looking will do
                for _ in watch(
                    self._conf_dir,
                    self._bin_dir,
                    watch_filter=None,
                    step=_SETTLE_MS,
                    rust_timeout=int(_LOOK_SECONDS * 1000),
                    yield_on_timeout=True,
                    stop_event=self._stop,
                    raise_interrupt=False,
                    recursive=False,
                ):
                    yield
            if self._stop.wait(_LOOK_SECONDS):
                return
            yield

    def _copy(self) -> bool:
        wanted, target = self._binary.read_bytes(), self._bin_dir / PLUGIN
        with suppress(OSError):
            if target.read_bytes() == wanted and os.access(target, os.X_OK):
                return False
        self._bin_dir.mkdir(parents=True, exist_ok=True)
        _replace(target, wanted, mode=0o755)
        return True

    def _chosen(self) -> str | None:
        return chosen(entry.name for entry in self._conf_dir.iterdir())

    def _chain(self) -> bool:
        name = self._chosen()
        if name is None:
            raise KmeshError(
                f"no CNI configuration in {self._conf_dir} yet: waiting for the network's own plugin"
            )
        path = self._conf_dir / name
        try:
            text = with_plugin(path.read_text(encoding="utf-8"), socket=str(self._socket))
        except (ConflistError, UnicodeDecodeError) as error:
            raise KmeshError(f"{path} is left as it is: {error}") from error
        if text is None:
            return False
        if name.endswith(LISTS):
            _replace(path, text.encode(), mode=path.stat().st_mode & 0o777)
        else:
            self._convert(path, text)
        return True

    def _convert(self, path: Path, text: str) -> None:
        """A single plugin's file gives way to a list; the new one is there before the old is not."""
        _replace(path.with_suffix(LISTS[0]), text.encode(), mode=path.stat().st_mode & 0o777)
        path.replace(path.with_name(path.name + _SAVED))


_HINT = "are the host's directories for CNI mounted, and writable?"


def remove(*, bin_dir: Path, conf_dir: Path) -> list[str]:
    """Take the plugin off the node: out of every chain first, then the binary. Idempotent.

    Returns:
        what was removed, in words.

    Raises:
        KmeshError: something cannot be removed.
    """
    try:
        return [*_unchain(conf_dir), *_remove_binary(bin_dir)]
    except OSError as error:
        raise KmeshError(f"cannot remove {PLUGIN}: {error}", hint=_HINT) from error


def _unchain(conf_dir: Path) -> Iterator[str]:
    for path in sorted(conf_dir.iterdir()) if conf_dir.is_dir() else ():
        if path.name.endswith(_SAVED):
            path.replace(path.with_name(path.name.removesuffix(_SAVED)))
            path.with_name(path.name.removesuffix(_SAVED)).with_suffix(LISTS[0]).unlink(
                missing_ok=True
            )
            yield f"{PLUGIN} from {path.name.removesuffix(_SAVED)}"
        elif path.name.endswith(LISTS) and path.is_file():
            yield from _unchain_one(path)


def _unchain_one(path: Path) -> Iterator[str]:
    with suppress(ConflistError, UnicodeDecodeError):  # none that we wrote
        text = without_plugin(path.read_text(encoding="utf-8"))
        if text is not None:
            _replace(path, text.encode(), mode=path.stat().st_mode & 0o777)
            yield f"{PLUGIN} from {path}"


def _remove_binary(bin_dir: Path) -> Iterator[str]:
    for leftover in bin_dir.glob(f".{PLUGIN}.*") if bin_dir.is_dir() else ():
        leftover.unlink(missing_ok=True)
    target = bin_dir / PLUGIN
    if target.is_file():
        target.unlink()
        yield str(target)


def _replace(target: Path, content: bytes, *, mode: int) -> None:
    """Write a file in one step, on disk before it is in place."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(mode)
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
