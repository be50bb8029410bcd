"""Nouns of a server that is several processes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from overair.basics.clock import Instant


class Role(StrEnum):
    """A part of the server that a process may hold alone."""

    OPERATOR = "operator"
    GATEWAY = "gateway"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One process of a server with several."""

    name: str
    role: Role
    lock_key: int
    """The advisory lock that it holds while it lives: the database lets it go with the connection, however that ended."""
    began: Instant
    life_began: Instant
    """When the first of those began who have been there without a gap: the life of the server, not of this process."""
    heard_to: int | None
    """Of a gateway: the last row of the outbox that it has handed to its sessions."""
    connected: int
