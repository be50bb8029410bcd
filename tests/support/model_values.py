"""Values that a service model allows, drawn from its shapes: inputs and outputs of any operation."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping
from typing import Any

from overair.basics.clock import Instant
from overair.server.aws_protocol.rules import Invalid, string_check

ALPHABET = string.ascii_letters + string.digits + "_-"
TRICKY = ALPHABET + " /+&<>%ü"
DEPTH_MAX = 4
# What a pattern's own alphabet may need, tried until the check passes.
CANDIDATES = (
    "a",
    "abc123",
    "A" * 16,
    "123456789012",
    "0" * 32,
    "a" * 64,
    "arn:aws:iot:us-east-1:123456789012:thing/a",
    "arn:aws:iam::123456789012:role/abcdefghij",
    "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012",
    "arn:aws:acm-pca:us-east-1:123456789012:certificate-authority/12345678-1234-1234-1234-123456789012",
    "arn:aws:iam::aws:policy/x",
    "a.example.com",
    "a@example.com",
    "https://example.com/",
    "1.2.3",
    "2026-01-01 10:00",
    "/path/",
    "$next",
    "ABCDEFGHIJKLMNOP",
    "123456",
    "abc_def",
    "ap-southeast-2",
    "1234567890",
    "o-abcdefghij",
    "r-abcd",
    "ou-abcd-abcdefgh",
    "MTIz",
    "INFO",
    "{}",
    "a1b2c3d4-1234-1234-1234-123456789012",
    "10:00",
    "LAST",
    "15",
    "o-abcdefghij/r-abcd/ou-abcd-abcdefgh",
    "1.0",
    "2026-01-01T00:00:00Z",
    "key=value",
    "v1",
    "p99",
    ",",
    "Z123",
    "p-12345678",
    "arn:aws:s3:::bucket",
    "arn:aws:kms:us-east-1:123456789012:key/a",
    "arn:aws:acm:us-east-1:123456789012:acme-endpoint/a",
    "arn:aws:acm:us-east-1:123456789012:acme-endpoint/a/acme-domain-validation/b",
    "arn:aws:acm:us-east-1:123456789012:acme-endpoint/a/acme-external-account-binding/b",
    "-----BEGIN CERTIFICATE-----\nMTIz\n-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE KEY-----\nMTIz\n-----END PRIVATE KEY-----",
)


class Unmatched(Exception):
    """No candidate fits a pattern: the member is left out, or the operation if it is required."""


class Drawn:
    """Draws values for one model."""

    def __init__(
        self,
        shapes: Mapping[str, Any],
        chance: random.Random,
        *,
        tricky: bool = False,
        empty_lists: bool = False,
        left_out: float = 0.35,
    ) -> None:
        self.shapes = shapes
        self.chance = chance
        self.alphabet = TRICKY if tricky else ALPHABET
        self.empty_lists = empty_lists
        self.left_out = left_out

    def value(self, name: str, depth: int = 0) -> Any:
        shape = self.shapes[name]
        kind = shape["type"]
        if kind == "structure":
            return self.structure(shape, depth)
        if kind == "list":
            least = max(shape.get("min", 0), 0 if self.empty_lists else 1)
            count = min(max(least, self.chance.randint(0, 3)), shape.get("max", 3))
            return [self.value(shape["member"]["shape"], depth + 1) for _ in range(count)]
        if kind == "map":
            count = min(max(shape.get("min", 0), 2 if not self.empty_lists else self.chance.randint(0, 2)), shape.get("max", 3))
            return {self.value(shape["key"]["shape"]): self.value(shape["value"]["shape"], depth + 1) for _ in range(count)}
        return self.scalar(shape)

    def structure(self, shape: Any, depth: int) -> dict[str, Any]:
        members = shape.get("members", {})
        required = shape.get("required", ())
        if shape.get("union"):
            for name in self.chance.sample(sorted(members), len(members)):
                if depth < DEPTH_MAX or self.shapes[members[name]["shape"]]["type"] not in ("structure", "list", "map"):
                    return {name: self.value(members[name]["shape"], depth + 1)}
            raise Unmatched
        result = {}
        for name, member in members.items():
            if name not in required and (depth >= DEPTH_MAX or self.chance.random() < self.left_out):
                continue
            try:
                result[name] = self.value(member["shape"], depth + 1)
            except Unmatched:
                if name in required:
                    raise
        return result

    def scalar(self, shape: Any) -> Any:
        kind = shape["type"]
        if kind == "boolean":
            return self.chance.random() < 0.5
        if kind in ("integer", "long"):
            least = shape.get("min", 0)
            return self.chance.randint(least, min(shape.get("max", least + 1000), least + 1000))
        if kind in ("float", "double"):
            return float(max(shape.get("min", 0), min(shape.get("max", 100), self.chance.randint(0, 99))))
        if kind == "timestamp":
            return Instant(self.chance.randint(0, 4_000_000_000) * 1000)
        if kind == "blob":
            return self.chance.randbytes(max(shape.get("min", 0), 1) + self.chance.randint(0, 5))
        return self.text(shape)

    def text(self, shape: Any) -> str:
        if shape.get("enum"):
            return str(self.chance.choice(shape["enum"]))
        least = max(shape.get("min", 0), 1)
        longest = min(shape.get("max", least + 12), least + 12)
        check = string_check(shape)
        drawn = "".join(self.chance.choice(self.alphabet) for _ in range(self.chance.randint(least, longest)))
        for text in (drawn.strip() or "x", *CANDIDATES, *(c * least for c in "aA1"), "a" * longest):
            try:
                check(text)
            except Invalid:
                continue
            return text
        raise Unmatched(shape.get("pattern"))


def equal(left: Any, right: Any) -> bool:
    """Equality that takes a float for the same number however it was spelled."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def seed_of(*parts: str) -> int:
    """A seed that stays the same from run to run."""
    return int.from_bytes(re.sub(r"\W", "", "".join(parts)).encode()[-7:], "big")
