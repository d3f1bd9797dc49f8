# SPDX-License-Identifier: Apache-2.0
"""The node's CNI configuration with our plugin in its chain, and without: pure functions of its text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runtime.errors import KmeshError

PLUGIN = "kmesh-cni"
LISTS = (".conflist",)
SINGLE = (".conf", ".json")


class ConflistError(KmeshError):
    """A configuration that cannot be understood: it is left as it is."""


def chosen(names: Iterable[str]) -> str | None:
    """The file that runtimes take: the first by name of those that libcni reads."""
    return min((name for name in names if name.endswith((*LISTS, *SINGLE))), default=None)


def with_plugin(text: str, *, socket: str) -> str | None:
    """A configuration with our plugin last in the chain; None when it is so already.

    Args:
        text: of a list, or of a single plugin, which becomes a list.
        socket: of the daemon, on the host.

    Raises:
        ConflistError: it is no CNI configuration.
    """
    config = _load(text)
    entry = {"type": PLUGIN, "socket": socket}
    if "plugins" not in config:
        config = _as_list(config)
    plugins = _plugins(config)
    others = [plugin for plugin in plugins if plugin.get("type") != PLUGIN]
    if not others:
        raise ConflistError("it has no plugin that our own could be chained after")
    if plugins == [*others, entry]:
        return None
    return _dump({**config, "plugins": [*others, entry]})


def without_plugin(text: str) -> str | None:
    """A configuration without our plugin; None when it is not in it.

    Raises:
        ConflistError: it is no CNI configuration.
    """
    config = _load(text)
    if "plugins" not in config:
        return None
    plugins = _plugins(config)
    others = [plugin for plugin in plugins if plugin.get("type") != PLUGIN]
    return _dump({**config, "plugins": others}) if others != plugins else None


def _load(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConflistError(f"it is not JSON: {error}") from error
    if not isinstance(config, dict) or not ("plugins" in config or "type" in config):
        raise ConflistError("it is no CNI configuration: neither type nor plugins")
    return config


def _plugins(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    plugins = config["plugins"]
    if not isinstance(plugins, list) or not all(isinstance(each, dict) for each in plugins):
        raise ConflistError("its plugins are no list of objects")
    return plugins


def _as_list(plugin: Mapping[str, Any]) -> dict[str, Any]:
    """As libcni does it (ConfListFromConf): the single plugin as the only one of a list."""
    own = {key: value for key, value in plugin.items() if key not in ("cniVersion", "name")}
    version = plugin.get("cniVersion", "0.3.1")
    return {
        "cniVersion": version if version not in ("0.1.0", "0.2.0") else "0.3.1",
        "name": plugin.get("name", "network"),
        "plugins": [own],
    }


def _dump(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
