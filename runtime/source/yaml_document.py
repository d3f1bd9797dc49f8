# SPDX-License-Identifier: Apache-2.0
"""One YAML document to plain values, whatever somebody wrote into it.

libyaml composes by recursion, and its caller's walk follows aliases: without bounds, a file of
brackets overflows the stack, and ten lines of aliases are as large as the memory.
"""

from __future__ import annotations

from typing import Any

import yaml

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 100  # a Service has 5 levels
_EXPANSION = 10  # times as many nodes as are written down
_ALWAYS = 10_000  # nodes that are no trouble


class _TooMuchError(yaml.YAMLError):
    """Well-formed, and not for us."""


class _Loader(_BASE):  # type: ignore[misc]
    """The safe loader, which counts how deep it is."""

    depth = 0

    def descend_resolver(self, *_where: Any) -> None:
        """Called before each node is composed."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _TooMuchError(f"nested more than {_DEEPEST} deep")

    def ascend_resolver(self) -> None:
        """Called after."""
        self.depth -= 1


class _Extent:
    """How large and how deep a tree is once aliases are followed, each node looked at once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}

    def of(self, node: yaml.Node) -> tuple[int, int]:
        """Give nodes and levels.

        Raises:
            yaml.YAMLError: it contains itself, or is too deep.
        """
        if id(node) not in self.known:
            self.known[id(node)] = (0, 0)  # not done: meeting it again within means a loop
            found = [self.of(child) for child in _children(node)]
            levels = 1 + max((deep for _, deep in found), default=0)
            if levels > _DEEPEST:
                raise _TooMuchError(f"nested more than {_DEEPEST} deep")
            self.known[id(node)] = (1 + sum(nodes for nodes, _ in found), levels)
        extent = self.known[id(node)]
        if not extent[0]:
            raise _TooMuchError("an alias leads back to what contains it")
        return extent


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def load_document(text: str) -> Any:
    """Read one document; None where there is nothing in it.

    Raises:
        yaml.YAMLError: it is no YAML, or nests or repeats itself beyond measure.
        Exception: a tag was put on a value that it does not fit: PyYAML raises what it happens to.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None and "*" in text:
            extent = _Extent()
            nodes, _ = extent.of(node)
            if nodes > _ALWAYS + _EXPANSION * len(extent.known):
                raise _TooMuchError("its aliases repeat too much")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()
