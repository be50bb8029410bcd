"""Which fields the index has, of what type, and what a query may name. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.server.fleet_index.query import AllOf, AnyOf, Equals, Not, Query, Term, Value, refused, terms

FIELD_LENGTH_MAX: Final = 176
"""A package's name of 128 characters, and what stands around it."""
ATTRIBUTES: Final = "attributes."
JOBS: Final = "jobs."
EVERY_JOB: Final = "jobs.*"
CONNECTIVITY: Final = "connectivity."
SHADOW: Final = "shadow."
PACKAGE_SHADOW: Final = "$package"
_PACKAGES: Final = "shadow.name.$package.reported."
_PACKAGE_VERSION: Final = ".version"
VERSION: Final = "registry.version"
DESCRIPTION: Final = "thingGroupDescription"


class FieldType(Enum):
    """How a field is aggregated."""

    NUMBER = "Number"
    STRING = "String"
    BOOLEAN = "Boolean"


class Index(Enum):
    """The two indices; the value is the wire's name."""

    THINGS = "AWS_Things"
    GROUPS = "AWS_ThingGroups"


@dataclass(frozen=True, slots=True)
class Field:
    """A field that may be aggregated."""

    name: str
    type: FieldType


MANAGED: Final[dict[Index, tuple[Field, ...]]] = {
    Index.THINGS: (
        Field("thingName", FieldType.STRING),
        Field("thingId", FieldType.STRING),
        Field("registry.thingTypeName", FieldType.STRING),
        Field("registry.thingGroupNames", FieldType.STRING),
        Field(VERSION, FieldType.NUMBER),
    ),
    Index.GROUPS: (
        Field("thingGroupName", FieldType.STRING),
        Field("thingGroupId", FieldType.STRING),
        Field(DESCRIPTION, FieldType.STRING),
        Field("parentGroupNames", FieldType.STRING),
    ),
}
CONNECTIVITY_FIELDS: Final = (
    Field("connectivity.connected", FieldType.BOOLEAN),
    Field("connectivity.timestamp", FieldType.NUMBER),
    Field("connectivity.disconnectReason", FieldType.STRING),
)
_SEARCHED: Final = {
    Index.THINGS: ("thingName", "thingId", "thingTypeName", "thingGroupNames"),
    Index.GROUPS: ("thingGroupName", "thingGroupId", DESCRIPTION, "parentGroupNames"),
}
SEARCHED_WITHOUT_FIELD: Final = frozenset(name for names in _SEARCHED.values() for name in names)
"""Beside all attributes: where a term without a field is looked for."""
_NOT_HERE: Final = {
    "shadow": f"there are no device shadows here but {_PACKAGES}PACKAGE{_PACKAGE_VERSION}, what jobs have put on a thing",
    "deviceDefender": "there is no Device Defender here",
    "registry": "of registry.… a query may name thingTypeName and thingGroupNames; versions aren't searchable",
}


def plain(field: str) -> str:
    """The name under which the index keeps a field: ``registry.thingTypeName`` is ``thingTypeName``."""
    stripped = field.removeprefix("registry.")
    return stripped if stripped in ("thingTypeName", "thingGroupNames") else field


def is_searched_without_field(field: str) -> bool:
    return field in SEARCHED_WITHOUT_FIELD or field.startswith(ATTRIBUTES)


@lru_cache(maxsize=1024)
def resolve(query: Query, index: Index) -> Query:
    """The query with each field under the index's own name; a phrase over a description becomes its words.

    Raises:
        InvalidRequest: a field that the index hasn't. Subject ``query``.
    """
    match query:
        case AllOf():
            return AllOf(tuple(resolve(part, index) for part in query.parts))
        case AnyOf():
            return AnyOf(tuple(resolve(part, index) for part in query.parts))
        case Not():
            return Not(resolve(query.part, index))
        case Term():
            return query if query.field is None else _resolved(query, _known(plain(query.field), index))


def _resolved(term: Term, field: str) -> Query:
    if field == DESCRIPTION and isinstance(term.test, Equals):
        words = term.test.value.text.split()
        if len(words) > 1:
            return AllOf(tuple(Term(DESCRIPTION, Equals(Value(word, None))) for word in words))
    return replace(term, field=field)


def names_connectivity(query: Query) -> bool:
    """Whether who is connected changes the answer."""
    return any(term.field is not None and term.field.startswith(CONNECTIVITY) for term in terms(query))


def package_field(package: str) -> str:
    """Where the version of a package on a thing stands, as the cloud names it."""
    return f"{_PACKAGES}{package}{_PACKAGE_VERSION}"


def package_of(field: str) -> str | None:
    """Which package's version a field holds; None for another field."""
    if field.startswith(_PACKAGES) and field.endswith(_PACKAGE_VERSION):
        return field[len(_PACKAGES) : -len(_PACKAGE_VERSION)] or None
    return None


def names_packages(query: Query) -> bool:
    """Whether what jobs have put on things changes the answer."""
    return any(term.field is not None and term.field.startswith(SHADOW) for term in terms(query))


def jobs_named(query: Query) -> Sequence[str]:
    """The fields of jobs whose executions' states change the answer."""
    return [term.field for term in terms(query) if term.field is not None and term.field.startswith(JOBS)]


def _known(field: str, index: Index) -> str:
    if len(field) > FIELD_LENGTH_MAX:
        raise refused("a field's name is too long.")
    known = field in _SEARCHED[index] or (field.startswith(ATTRIBUTES) and len(field) > len(ATTRIBUTES))
    if index is Index.THINGS:
        known = known or field in {each.name for each in CONNECTIVITY_FIELDS}
        known = known or (field.startswith(JOBS) and len(field) > len(JOBS)) or package_of(field) is not None
    if known:
        return field
    if (reason := _NOT_HERE.get(field.partition(".")[0])) is not None:
        raise refused(f"{field[:64]} can't be searched: {reason}.")
    names = [*_SEARCHED[index], "attributes.NAME"]
    if index is Index.THINGS:
        names += [*(each.name for each in CONNECTIVITY_FIELDS), "jobs.JOB_ID"]
    raise refused(f"the index has no field {field[:64]}. It has {', '.join(names)}.")


def index_named(name: str | None) -> Index:
    """The index of a name; AWS_Things for none.

    Raises:
        InvalidRequest: there are only the two. Subject ``index``.
    """
    try:
        return Index.THINGS if name is None else Index(name)
    except ValueError:
        raise InvalidRequest(
            f"There is no index {name}: the indices are AWS_Things and AWS_ThingGroups.", subject="index"
        ) from None
