"""From method and path to what a route means. Compiled when rooms are registered; matching is dictionaries. Pure.

A path is split at its slashes while it is still percent-encoded, then each segment is decoded, so ``%2F`` stays inside its
segment. Where several templates fit, a literal segment wins over a part (``{version}.root.json``), a part with more literal
text over one with less, any of them over a tail (``{name:path}``); a choice that leads nowhere is taken back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

PATH_SIZE_BYTES_MAX: Final = 4096
"""Still percent-encoded; the longest target name takes 3036."""

_LABEL: Final = re.compile(r"\{(\w+)(:path)?\}")
_BRACE: Final = re.compile(r"[{}]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9._~-]*)+")

Target = TypeVar("Target")


class BadPath(ValueError):
    """The path can't be read; the message says why."""


class PathTooLong(BadPath):
    """It is longer than any that means something."""


@dataclass(frozen=True, slots=True)
class _Leaf(Generic[Target]):
    target: Target
    labels: tuple[str, ...]


@dataclass(slots=True)
class _Node(Generic[Target]):
    literals: dict[str, _Node[Target]] = field(default_factory=dict)
    parts: list[tuple[str, str, _Node[Target]]] = field(default_factory=list)
    """(text before the label, text after it, what follows), most text first."""
    tail: _Leaf[Target] | None = None
    leaf: _Leaf[Target] | None = None


class Templates(Generic[Target]):
    """Targets by method and template."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node[Target]] = {}
        self._plain: dict[tuple[str, bytes], Target] = {}

    def add(self, method: str, template: str, target: Target) -> None:
        """Register a template.

        Raises:
            RuntimeError: it isn't one, or this method has one that stands for the same paths.
        """
        labels: list[str] = []
        segments = _segments_of(template)
        node = self._roots.setdefault(method, _Node())
        for number, segment in enumerate(segments):
            found = list(_LABEL.finditer(segment))
            if len(found) > 1 or _BRACE.search(_LABEL.sub("", segment)):
                raise RuntimeError(f"{template!r} has a segment that is neither text nor text with one label.")
            if not found:
                node = node.literals.setdefault(segment, _Node())
                continue
            labels.append(found[0][1])
            before, after = segment[: found[0].start()], segment[found[0].end() :]
            if found[0][2]:
                if before or after or number != len(segments) - 1 or node.tail is not None:
                    raise RuntimeError(f"{template!r}: a tail is the whole of the last segment, and there is one for a method.")
                node.tail = _Leaf(target, _distinct(labels, template))
                return
            node = _part(node, before, after)
        if node.leaf is not None:
            raise RuntimeError(f"Two routes stand for {method} {template}.")
        node.leaf = _Leaf(target, _distinct(labels, template))
        if not labels and _PLAIN.fullmatch(template):
            self._plain[method, template.encode("ascii")] = target

    def match(self, method: str, raw_path: bytes) -> tuple[Target, dict[str, str]] | None:
        """What a path means for a method, with its decoded labels; None where it means nothing.

        Raises:
            BadPath: too long, not UTF-8 once decoded, with control characters, or with a segment ``.`` or ``..``.
        """
        plain = self._plain.get((method, raw_path))
        if plain is not None:
            return plain, {}
        root = self._roots.get(method)
        if root is None:
            return None
        found = _walk(root, split(raw_path), 0)
        if found is None:
            return None
        leaf, values = found
        return leaf.target, dict(zip(leaf.labels, values, strict=True))

    def methods(self, raw_path: bytes) -> list[str]:
        """The methods for which a path means something, sorted.

        Raises:
            BadPath: as ``match``.
        """
        segments = split(raw_path)
        return sorted(method for method, root in self._roots.items() if _walk(root, segments, 0) is not None)

    def __iter__(self) -> Iterator[Target]:
        """Every target, once for each of its templates."""
        pending = list(self._roots.values())
        while pending:
            node = pending.pop()
            pending += [*node.literals.values(), *(child for _, _, child in node.parts)]
            yield from (leaf.target for leaf in (node.leaf, node.tail) if leaf is not None)


def split(raw_path: bytes) -> list[str]:
    """A path's segments, decoded.

    Raises:
        BadPath: see ``Templates.match``.
    """
    if len(raw_path) > PATH_SIZE_BYTES_MAX:
        raise PathTooLong(f"The path has {len(raw_path)} bytes; at most {PATH_SIZE_BYTES_MAX} are read.")
    if raw_path[:1] != b"/":
        raise BadPath("A path begins with a slash.")
    encoded = raw_path[1:].split(b"/")
    try:
        if b"%" in raw_path:
            segments = [unquote_to_bytes(segment).decode("utf-8") for segment in encoded]
        else:
            segments = [segment.decode("utf-8") for segment in encoded]
    except UnicodeDecodeError:
        raise BadPath("The path isn't UTF-8 once its percent-encoding is taken off.") from None
    for segment in segments:
        if segment in (".", ".."):
            raise BadPath("A path has no segments . and .. here: they stand for another path.")
        if _CONTROL.search(segment):
            raise BadPath("A path has no control characters.")
    return segments


def _walk(node: _Node[Target], segments: list[str], index: int) -> tuple[_Leaf[Target], tuple[str, ...]] | None:
    if index == len(segments):
        return None if node.leaf is None else (node.leaf, ())
    segment = segments[index]
    literal = node.literals.get(segment)
    if literal is not None:
        found = _walk(literal, segments, index + 1)
        if found is not None:
            return found
    for before, after, child in node.parts:
        if len(segment) > len(before) + len(after) and segment.startswith(before) and segment.endswith(after):
            found = _walk(child, segments, index + 1)
            if found is not None:
                return found[0], (segment[len(before) : len(segment) - len(after)], *found[1])
    if node.tail is not None:
        rest = "/".join(segments[index:])
        if rest:
            return node.tail, (rest,)
    return None


def _segments_of(template: str) -> list[str]:
    if not template.startswith("/") or "?" in template:
        raise RuntimeError(f"{template!r} is no path: it begins with a slash and has no query.")
    return template[1:].split("/")


def _part(node: _Node[Target], before: str, after: str) -> _Node[Target]:
    for known_before, known_after, child in node.parts:
        if (known_before, known_after) == (before, after):
            return child
    child = _Node()
    node.parts.append((before, after, child))
    node.parts.sort(key=lambda part: (-len(part[0]) - len(part[1]), part[0], part[1]))
    return child


def _distinct(labels: list[str], template: str) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise RuntimeError(f"{template!r} has a label twice.")
    return tuple(labels)
