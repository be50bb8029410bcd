"""From method, path and query to an operation, for the services whose operations are told apart by their paths.

One router for each service, since paths collide between services (wire reference §10.4). A path is split at its slashes while
it is still percent-encoded, then each segment is decoded, so ``%2F`` and ``%3A`` stay inside their segment. Literal segments
win over labels (``…/jobs/$next`` over ``…/jobs/{jobId}``), labels over a greedy label, which takes one or more segments.

Several operations may share a method and a path, as S3's sub-resources do. Then the query's literals (``?uploads``,
``list-type=2``) and what the operations require in query and headers tell them apart: the operation with the most such marks,
all of them present, wins; one that isn't deprecated before one that is; then the first by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from overair.server.aws_protocol.models import OperationModel, ServiceModel

SEGMENTS_MAX: Final = 1_024
"""Of a path; S3 keys of 1,024 bytes can be made of slashes alone."""

Labels = dict[str, str]


class BadPath(ValueError):
    """The path can't be decoded: a segment isn't UTF-8, or there are too many of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    operation: OperationModel
    labels: tuple[str, ...]
    query: tuple[tuple[str, str | None], ...]
    """Required query parameters; None: any value."""
    headers: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    label: _Node | None = None
    greedy: _Node | None = None
    candidates: list[_Candidate] = field(default_factory=list)


class Router:
    """The operations of one service as a trie of segments for each method."""

    def __init__(self, model: ServiceModel) -> None:
        self._roots: dict[str, _Node] = {}
        self._empty_tail_is_none = model.protocol == "rest-xml"
        for operation in model.operations.values():
            self._add(model, operation)
        for root in self._roots.values():
            _order(root)

    def _add(self, model: ServiceModel, operation: OperationModel) -> None:
        path, _, query = operation.uri.partition("?")
        node = self._roots.setdefault(operation.method, _Node())
        labels: list[str] = []
        for segment in path.removeprefix("/").split("/") if path != "/" else ():
            if segment.startswith("{"):
                labels.append(segment[1:-1].removesuffix("+"))
                if segment.endswith("+}"):
                    node.greedy = node.greedy or _Node()
                    node = node.greedy
                else:
                    node.label = node.label or _Node()
                    node = node.label
            else:
                node = node.literals.setdefault(segment, _Node())
        required: list[tuple[str, str | None]] = []
        for literal in query.split("&") if query else ():
            name, equals, value = literal.partition("=")
            required.append((name, value if equals else None))
        headers: list[str] = []
        shape = model.shapes[operation.input_shape] if operation.input_shape else {}
        for name in shape.get("required", ()):
            member = shape["members"][name]
            if member.get("location") == "querystring":
                required.append((member.get("locationName", name), None))
            elif member.get("location") == "header" and model.protocol == "rest-xml":
                headers.append(member.get("locationName", name).lower())
        node.candidates.append(
            _Candidate(operation=operation, labels=tuple(labels), query=tuple(required), headers=tuple(headers))
        )

    def route(
        self, method: str, raw_path: bytes, query: Mapping[str, list[str]], headers: Mapping[str, str]
    ) -> tuple[OperationModel, Labels] | None:
        """The operation and its decoded URI labels; None where no operation has this method and path.

        Raises:
            BadPath: a segment isn't UTF-8 once decoded.
        """
        root = self._roots.get(method)
        if root is None:
            return None
        if raw_path.count(b"/") > SEGMENTS_MAX:
            raise BadPath(f"The path has more than {SEGMENTS_MAX} segments.")
        trimmed = raw_path[1:] if raw_path[:1] == b"/" else raw_path
        encoded = trimmed.split(b"/") if trimmed else []
        if self._empty_tail_is_none and len(encoded) == 2 and not encoded[1]:
            encoded.pop()  # "/bucket/" means the bucket
        try:
            segments = [(unquote_to_bytes(segment) if b"%" in segment else segment).decode("utf-8") for segment in encoded]
        except UnicodeDecodeError:
            raise BadPath("The path isn't UTF-8 once its percent-encoding is taken off.") from None
        found = _walk(root, segments, 0)
        if found is None:
            return None
        node, values = found
        candidate = _choose(node.candidates, query, headers)
        if candidate is None:
            return None
        return candidate.operation, dict(zip(candidate.labels, values, strict=True))


def _walk(node: _Node, segments: list[str], index: int) -> tuple[_Node, tuple[str, ...]] | None:
    if index == len(segments):
        return (node, ()) if node.candidates else None
    segment = segments[index]
    literal = node.literals.get(segment)
    if literal is not None:
        found = _walk(literal, segments, index + 1)
        if found is not None:
            return found
    if node.label is not None and segment:
        found = _walk(node.label, segments, index + 1)
        if found is not None:
            return found[0], (segment, *found[1])
    if node.greedy is not None:
        # No model has anything behind a greedy label, so it takes what is left.
        rest = "/".join(segments[index:])
        if rest:
            return node.greedy, (rest,)
    return None


def _choose(candidates: list[_Candidate], query: Mapping[str, list[str]], headers: Mapping[str, str]) -> _Candidate | None:
    if len(candidates) == 1 and not candidates[0].headers and all(value is None for _, value in candidates[0].query):
        return candidates[0]  # a required parameter that is missing is told by validation, in words of its own
    for candidate in candidates:
        if all(name in query and (value is None or value in query[name]) for name, value in candidate.query) and all(
            name in headers for name in candidate.headers
        ):
            return candidate
    return None


def _order(node: _Node) -> None:
    node.candidates.sort(key=lambda c: (-len(c.query) - len(c.headers), c.operation.deprecated, c.operation.name))
    for child in (*node.literals.values(), node.label, node.greedy):
        if child is not None:
            _order(child)
