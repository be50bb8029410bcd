"""Thing types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, InvalidRequest, NotFound
from overair.basics.ids import AccountId, IdSource, ThingTypeName
from overair.basics.work import Tx
from overair.server.devices.model import GENEROUS, TYPE_REST_BEFORE_DELETION_MS, RegistryLimits, ThingType
from overair.server.devices.ports import TypeStore
from overair.server.devices.tags import TagsService

KIND = "thingtype"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeSettings:
    """What an operator says about a type; what is None stays as it is, and is empty at first."""

    description: str | None = None
    searchable_attributes: tuple[str, ...] | None = None
    propagating_attributes: tuple[Mapping[str, str], ...] | None = None


class ThingTypesService:
    """Creates, describes, deprecates and deletes thing types.

    Raises, everywhere: ``NotFound``, ``AlreadyExists`` and ``InvalidRequest`` with subject ``thing-type``.
    """

    def __init__(
        self, *, store: TypeStore, tags: TagsService, clock: Clock, ids: IdSource, limits: RegistryLimits = GENEROUS
    ) -> None:
        self._store = store
        self._tags = tags
        self._clock = clock
        self._ids = ids
        self._limits = limits
        tags.accept(KIND, lambda tx, account, name: store.find(tx, account, ThingTypeName(name)) is not None)

    def create(
        self, tx: Tx, place: Place, name: ThingTypeName, settings: TypeSettings, tags: Mapping[str, str] | None = None
    ) -> ThingType:
        """Create a type; an identical repeat gives the one that is there."""
        self._check(settings)
        wanted = ThingType(
            account=place.account,
            name=name,
            id=self._ids.uuid(),
            description=settings.description or "",
            searchable_attributes=settings.searchable_attributes or (),
            propagating_attributes=settings.propagating_attributes or (),
            created_at=self._clock.now(),
        )
        standing = self._store.find(tx, place.account, name)
        if standing is not None:
            if standing.same_settings(wanted):
                return standing
            raise AlreadyExists(
                f"ThingType {name} already exists in account with different settings.",
                subject="thing-type",
                details={"resourceId": name, "resourceArn": place.iot(KIND, name)},
            )
        self._store.put(tx, wanted)
        self._tags.set_new(tx, place, place.iot(KIND, name), tags)
        return wanted

    def find(self, tx: Tx, account: AccountId, name: ThingTypeName) -> ThingType:
        """A type by name."""
        found = self._store.find(tx, account, name)
        if found is None:
            raise NotFound(f"ThingType {name} not found.", subject="thing-type")
        return found

    def require_usable(self, tx: Tx, account: AccountId, name: ThingTypeName) -> None:
        """See that things may be given this type: it is there and not deprecated."""
        if self.find(tx, account, name).deprecated_at is not None:
            raise InvalidRequest(
                f"ThingType {name} is deprecated: no thing can be given it any more. Undo the deprecation or use another type.",
                subject="thing-type",
            )

    def update(self, tx: Tx, account: AccountId, name: ThingTypeName, settings: TypeSettings) -> None:
        """Change what the settings name."""
        self._check(settings)
        found = self.find(tx, account, name)
        changed = replace(
            found,
            description=found.description if settings.description is None else settings.description,
            searchable_attributes=(
                found.searchable_attributes if settings.searchable_attributes is None else settings.searchable_attributes
            ),
            propagating_attributes=(
                found.propagating_attributes if settings.propagating_attributes is None else settings.propagating_attributes
            ),
        )
        self._store.put(tx, changed)

    def deprecate(self, tx: Tx, account: AccountId, name: ThingTypeName, *, undo: bool) -> None:
        """Close a type for new things, or open it again. A repeat doesn't move the moment of deprecation."""
        found = self.find(tx, account, name)
        if undo:
            self._store.put(tx, replace(found, deprecated_at=None))
        elif found.deprecated_at is None:
            self._store.put(tx, replace(found, deprecated_at=self._clock.now()))

    def delete(self, tx: Tx, place: Place, name: ThingTypeName) -> None:
        """Delete a type that was deprecated at least five minutes ago and has no things (wire reference §10.5)."""
        found = self.find(tx, place.account, name)
        if found.deprecated_at is None:
            raise InvalidRequest(
                f"Cannot delete thing type {name}: deprecate it with DeprecateThingType first.", subject="thing-type"
            )
        rested_ms = self._clock.now() - found.deprecated_at
        if rested_ms < TYPE_REST_BEFORE_DELETION_MS:
            raise InvalidRequest(
                f"Cannot delete thing type {name}: please wait for 5 minutes after deprecation and then retry "
                f"({(TYPE_REST_BEFORE_DELETION_MS - rested_ms + 999) // 1000} s left).",
                subject="thing-type",
            )
        if self._store.is_used(tx, place.account, name):
            raise InvalidRequest(
                f"Cannot delete thing type {name}: there are still things of this type. Give them another type first.",
                subject="thing-type",
            )
        self._store.delete(tx, place.account, name)
        self._tags.forget(tx, place, place.iot(KIND, name))

    def page(
        self, tx: Tx, account: AccountId, *, name: ThingTypeName | None, after: str | None, limit: int
    ) -> Sequence[ThingType]:
        """Types by name, or the one of this name."""
        return self._store.page(tx, account, name=name, after=after, limit=limit)

    def _check(self, settings: TypeSettings) -> None:
        most = self._limits.searchable_attributes_max
        if len(settings.searchable_attributes or ()) > most:
            raise InvalidRequest(f"A thing type has at most {most} searchable attributes.", subject="thing-type")
        if len(settings.propagating_attributes or ()) > self._limits.attributes_with_type_max:
            raise InvalidRequest("A thing type has too many propagating attributes.", subject="thing-type")
