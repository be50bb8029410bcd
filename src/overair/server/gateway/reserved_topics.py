"""Which handler answers a publish to a reserved topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overair.server.gateway.handlers import TopicHandler, topics_of

PREFIX: Final = "$aws/"


class _Node:
    __slots__ = ("handler", "literals", "names", "parameter", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rest: _Node | None = None
        self.handler: TopicHandler | None = None
        self.names: tuple[str, ...] = ()


class ReservedTopics:
    """A trie over the patterns that rooms' doors have marked with ``@topic``."""

    def __init__(self) -> None:
        self._root = _Node()

    def register(self, door: object) -> None:
        """Take every marked method of a door.

        Raises:
            RuntimeError: two handlers claim one pattern, or a pattern isn't below ``$aws``: a mistake of ours.
        """
        for pattern, handler in topics_of(door):
            self._add(pattern, handler)

    def _add(self, pattern: str, handler: TopicHandler) -> None:
        if not pattern.startswith(PREFIX):
            raise RuntimeError(f"{pattern} is not a reserved topic: it must begin with {PREFIX}")
        node = self._root
        names: list[str] = []
        levels = pattern.split("/")
        for position, level in enumerate(levels):
            if level.startswith("{") and level.endswith("+}"):
                if position != len(levels) - 1:
                    raise RuntimeError(f"{pattern}: only the last level can stand for several.")
                names.append(level[1:-2])
                node.rest = node.rest or _Node()
                node = node.rest
            elif level.startswith("{") and level.endswith("}"):
                names.append(level[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(level, _Node())
        if node.handler is not None:
            raise RuntimeError(f"Two handlers claim {pattern}.")
        node.handler = handler
        node.names = tuple(names)

    def find(self, topic: str) -> tuple[TopicHandler, Mapping[str, str]] | None:
        """The handler of a topic and its parameters. Literal levels win over parameters, those over the rest."""
        values: list[str] = []
        node = _descend(self._root, topic.split("/"), 0, values)
        if node is None or node.handler is None:
            return None
        return node.handler, dict(zip(node.names, values, strict=True))


def _descend(node: _Node, levels: list[str], position: int, values: list[str]) -> _Node | None:
    if position == len(levels):
        return node if node.handler is not None else None
    literal = node.literals.get(levels[position])
    if literal is not None:
        found = _descend(literal, levels, position + 1, values)
        if found is not None:
            return found
    depth = len(values)
    if node.parameter is not None:
        values.append(levels[position])
        found = _descend(node.parameter, levels, position + 1, values)
        if found is not None:
            return found
        del values[depth:]
    if node.rest is not None:
        values.append("/".join(levels[position:]))
        return node.rest
    return None
