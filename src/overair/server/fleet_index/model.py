"""Nouns of the fleet index. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, GroupName
from overair.server.fleet_index.fields import (
    CONNECTIVITY,
    CONNECTIVITY_FIELDS,
    EVERY_JOB,
    JOBS,
    MANAGED,
    SHADOW,
    Field,
    Index,
)
from overair.server.fleet_index.query import Document, Value, number_of

NOBODY: Final = "NOT *"
"""The query of a group that is being deleted: nobody comes in any more."""
QUERY_VERSION: Final = "2017-09-30"
CUSTOM_FIELDS_MAX: Final = 100
DYNAMIC_GROUPS_MAX: Final = 500


class Phase(Enum):
    """What a worker still has to do for an index."""

    EMPTYING = "EMPTYING"
    """What an earlier configuration left is taken away; then the index is built, or gone if it is off."""
    BUILDING = "BUILDING"
    """Not whole yet: no search is answered."""
    REBUILDING = "REBUILDING"
    """Whole by the configuration before; what the new one says is added or taken away."""
    ACTIVE = "ACTIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """One index of an account, and how far its worker has come."""

    account: AccountId
    index: Index
    phase: Phase
    due_at: Instant
    """No step before: every process of the server goes by the new configuration by then."""
    cursor: str = ""
    """The last name that was done."""
    built_at: Instant | None = None
    """When it became ACTIVE last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What an account has indexed. All off unless told."""

    things: bool = False
    connectivity: bool = False
    groups: bool = False
    packages: bool = False
    """What jobs have put on things."""
    fields: tuple[Field, ...] = ()
    """Custom fields of things."""
    group_fields: tuple[Field, ...] = ()

    def has(self, index: Index) -> bool:
        return self.things if index is Index.THINGS else self.groups

    def has_job(self, name: str) -> bool:
        """Whether a field ``jobs.JOB_ID`` is indexed."""
        return self.things and any(each.name in (EVERY_JOB, name) for each in self.fields)

    @property
    def has_jobs(self) -> bool:
        return self.things and any(each.name.startswith(JOBS) for each in self.fields)

    def managed(self, index: Index) -> tuple[Field, ...]:
        connectivity = CONNECTIVITY_FIELDS if index is Index.THINGS and self.connectivity else ()
        return (*MANAGED[index], *connectivity)

    def custom(self, index: Index) -> tuple[Field, ...]:
        return self.fields if index is Index.THINGS else self.group_fields


class Source(Enum):
    """Who says what a field holds."""

    REGISTRY = "registry"
    CONNECTIVITY = "connectivity"
    JOBS = "jobs"
    PACKAGES = "packages"

    def owns(self, name: str) -> bool:
        if self is Source.CONNECTIVITY:
            return name.startswith(CONNECTIVITY)
        if self is Source.JOBS:
            return name.startswith(JOBS)
        if self is Source.PACKAGES:
            return name.startswith(SHADOW)
        return not name.startswith((CONNECTIVITY, JOBS, SHADOW))


Entry = tuple[str, str]
"""A field, and one value of it as it is shown."""


def document_of(entries: Sequence[Entry]) -> Document:
    """The entries of one thing or group as queries see them."""
    found: dict[str, list[Value]] = {}
    for name, shown in entries:
        found.setdefault(name, []).append(Value(shown.lower(), number_of(shown)))
    return found


class BuildPhase(Enum):
    """What is left of filling a dynamic group after its query was set."""

    JOINING = "JOINING"
    LEAVING = "LEAVING"
    DELETING = "DELETING"
    """It was deleted: its many members leave it, then it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBuild:
    """A dynamic group whose members are being found, and how far that has come."""

    account: AccountId
    group: GroupName
    phase: BuildPhase = BuildPhase.JOINING
    cursor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a field's numbers come to; None where there is no number."""

    count: int
    total: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    average: float | None = None
    sum_of_squares: float | None = None
    variance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One row of a search."""

    name: str
    entries: Sequence[Entry]

    def values(self, name: str) -> list[str]:
        return sorted(shown for field_name, shown in self.entries if field_name == name)

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)

    def below(self, prefix: str) -> Mapping[str, str]:
        return {name.removeprefix(prefix): shown for name, shown in self.entries if name.startswith(prefix)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionNote:
    """The last thing that was heard of a client."""

    connected: bool
    at: Instant
    reason: str | None = None
    entries: tuple[Entry, ...] = field(init=False)

    def __post_init__(self) -> None:
        said = [("connectivity.connected", "true" if self.connected else "false"), ("connectivity.timestamp", str(self.at))]
        if self.reason is not None and not self.connected:
            said.append(("connectivity.disconnectReason", self.reason))
        object.__setattr__(self, "entries", tuple(said))


NODE: Final = "connectivity.node"
"""Which process of the server holds the connection: for us alone, no query names it."""
NEVER_CONNECTED: Final[tuple[Entry, ...]] = (("connectivity.connected", "false"),)
