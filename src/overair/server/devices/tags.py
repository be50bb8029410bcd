"""Tags of iot resources: one table for every room whose resources have an ``arn:aws:iot:…``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.devices.model import TAGS_MAX, own_resource
from overair.server.devices.ports import TagStore

TAG_VALUE_LENGTH_MAX = 256

Exists = Callable[[Tx, AccountId, str], bool]
"""(unit, account, name after the ARN's kind) → whether there is such a resource."""


class TagsService:
    """Sets, removes and lists tags. Other rooms say with ``accept`` which kinds of ARN are theirs.

    Raises, everywhere: ``InvalidRequest`` and ``NotFound`` with subject ``tagged-resource``, ``InvalidRequest`` and
    ``LimitExceeded`` with subject ``tags``.
    """

    def __init__(self, *, store: TagStore) -> None:
        self._store = store
        self._kinds: dict[str, Exists] = {}

    def accept(self, kind: str, exists: Exists) -> None:
        """Register, at composition, resources ``arn:aws:iot:{region}:{account}:{kind}/{name}`` as ones that carry tags."""
        self._kinds[kind] = exists

    def add(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str]) -> None:
        """Set these tags; a key that is there gets the new value."""
        self._require(tx, place, arn)
        merged = {**self._store.tags(tx, place.account, arn), **tags}
        _check(merged)
        self._store.set(tx, place.account, arn, merged)

    def remove(self, tx: Tx, place: Place, arn: str, keys: Sequence[str]) -> None:
        """Take these tags away; keys that aren't there are fine."""
        self._require(tx, place, arn)
        standing = self._store.tags(tx, place.account, arn)
        kept = {key: value for key, value in standing.items() if key not in set(keys)}
        if len(kept) != len(standing):
            self._store.set(tx, place.account, arn, kept)

    def list(self, tx: Tx, place: Place, arn: str) -> Mapping[str, str]:
        """A resource's tags by key."""
        self._require(tx, place, arn)
        return self._store.tags(tx, place.account, arn)

    def tags_of(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        """What *access* asks before the resource is known to be there (``aws:ResourceTag``). Raises nothing."""
        return self._store.tags(tx, account, arn)

    def set_new(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str] | None) -> None:
        """The tags of a resource that has just been created in this unit."""
        if tags:
            _check(tags)
            self._store.set(tx, place.account, arn, tags)

    def forget(self, tx: Tx, place: Place, arn: str) -> None:
        """The resource is gone, and its tags with it."""
        self._store.set(tx, place.account, arn, {})

    def _require(self, tx: Tx, place: Place, arn: str) -> None:
        kind, name = own_resource(place, arn, "tagged-resource", tuple(sorted(self._kinds)))
        if not self._kinds[kind](tx, place.account, name):
            raise NotFound(f"The resource {arn} doesn't exist.", subject="tagged-resource")


def _check(tags: Mapping[str, str]) -> None:
    if len(tags) > TAGS_MAX:
        raise LimitExceeded(f"A resource carries at most {TAGS_MAX} tags; this would make {len(tags)}.", subject="tags")
    for key, value in tags.items():
        if key.lower().startswith("aws:"):
            raise InvalidRequest(f"The tag key {key!r} begins with aws:, which is reserved.", subject="tags")
        if not (key + value).isprintable() or len(value) > TAG_VALUE_LENGTH_MAX:
            raise InvalidRequest(
                f"The tag {key!r} has a value that can't be kept: at most {TAG_VALUE_LENGTH_MAX} characters, "
                "no control characters.",
                subject="tags",
            )
