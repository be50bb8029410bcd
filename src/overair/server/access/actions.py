"""The one table: what each operation needs. An operation that isn't in it is denied to everybody.

A need names its action (and other names of the same permission) and the resources it is needed on. All needs of an operation
must be met, each on all its resources. Operations with no needs are open to whoever is proved; those that say so decide inside.
Reference: "Actions, resources, and condition keys" of each service; wire reference §8.5, §12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from overair.basics.arn import Place
from overair.server.aws_protocol.operations import Request

Resources = Callable[[Place, Request], Sequence[str]]
When = Callable[[Request], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One permission that an operation needs."""

    actions: tuple[str, ...]
    """Names of one permission: the first is today's and stands in refusals; a policy may use any."""
    resources: Resources
    when: When | None = None
    """Only for requests for which this holds."""

    def applies(self, request: Request) -> bool:
        return self.when is None or self.when(request)


_MEMBER: Final = re.compile(r"\{(\w+)\}")


def template(text: str) -> Resources:
    """ARNs from a template: ``{member}`` is a member of the request, ``{@region}`` and ``{@account}`` are the place's.

    A member that the request leaves out becomes ``*``: the permission must then hold for every name.
    """

    def resources(place: Place, request: Request) -> Sequence[str]:
        plain = text.replace("{@region}", place.region).replace("{@account}", place.account)
        return (_MEMBER.sub(lambda found: str(request.get(found.group(1), "*")), plain),)

    return resources


def iot(text: str) -> Resources:
    """``arn:aws:iot:{region}:{account}:`` and a template."""
    return template("arn:aws:iot:{@region}:{@account}:" + text)


def member_arn(*members: str) -> Resources:
    """The ARN that the first of these members which is present holds."""

    def resources(_: Place, request: Request) -> Sequence[str]:
        for member in members:
            if request.get(member):
                return (str(request[member]),)
        return ("*",)

    return resources


def name_or_arn(arn_member: str, by_name: Resources) -> Resources:
    """The ARN that a member holds, where the request names the resource so; else the template's."""

    def resources(place: Place, request: Request) -> Sequence[str]:
        return (str(request[arn_member]),) if request.get(arn_member) else by_name(place, request)

    return resources


def both(*parts: Resources) -> Resources:
    """The resources of several templates together."""

    def resources(place: Place, request: Request) -> Sequence[str]:
        return [arn for part in parts for arn in part(place, request)]

    return resources


def each_of(member: str) -> Resources:
    """Every ARN in a list member; none if it is absent."""

    def resources(_: Place, request: Request) -> Sequence[str]:
        return [str(item) for item in request.get(member, ())]

    return resources


def named_in(member: str, resource: str) -> Resources:
    """What ``iot`` makes of each name in a list member; none if it is absent. ``resource`` is such as ``thinggroup``."""

    def resources(place: Place, request: Request) -> Sequence[str]:
        return [place.iot(resource, str(name)) for name in request.get(member, ())]

    return resources


def anything(_: Place, __: Request) -> Sequence[str]:
    """For what can't be narrowed to a resource: ``*``."""
    return ("*",)


def need(*actions: str, on: Resources = anything, when: When | None = None) -> Need:
    return Need(actions=actions, resources=on, when=when)


OPEN: Final[tuple[Need, ...]] = ()
"""Everybody who is proved."""


def by_resource(service: str, resources: Resources, *operations: str) -> dict[tuple[str, str], tuple[Need, ...]]:
    """Operations whose action is their own name, all on the same kind of resource."""
    return {(service, name): (need(f"{service}:{name}", on=resources),) for name in operations}


def _table() -> Iterator[Mapping[tuple[str, str], tuple[Need, ...]]]:
    # Imported here: the tables are made with the words above.
    from overair.server.access import actions_iam, actions_iot, actions_objects, actions_uptane

    yield actions_iot.TABLE
    yield actions_iam.TABLE
    yield actions_objects.TABLE
    yield actions_uptane.TABLE


def operation_table() -> dict[tuple[str, str], tuple[Need, ...]]:
    """(service, operation) → what it needs, of every service."""
    whole: dict[tuple[str, str], tuple[Need, ...]] = {}
    for part in _table():
        assert whole.keys().isdisjoint(part), "an operation stands in one table"
        whole.update(part)
    return whole


def tag_context(request: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """``aws:RequestTag/…`` and ``aws:TagKeys`` from whatever way a service spells tags."""
    tags = request.get("tags", request.get("Tags"))
    pairs: list[tuple[str, str]] = []
    if isinstance(tags, Mapping):
        pairs = [(str(key), str(value)) for key, value in tags.items()]
    elif isinstance(tags, list | tuple):
        pairs = [(str(tag.get("Key", "")), str(tag.get("Value", ""))) for tag in tags if isinstance(tag, Mapping)]
    named = request.get("tagKeys", request.get("TagKeys", ()))
    keys = tuple(key for key, _ in pairs) or tuple(str(key) for key in (named if isinstance(named, list | tuple) else ()))
    context: dict[str, tuple[str, ...]] = {f"aws:RequestTag/{key}": (value,) for key, value in pairs}
    return {**context, "aws:TagKeys": keys} if keys else context
