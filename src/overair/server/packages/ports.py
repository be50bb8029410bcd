"""What the catalogue asks of its records and of the rooms below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, JobId, ObjectKey, ThingName, VersionId
from overair.basics.work import Tx
from overair.server.aws_protocol.operations import Caller
from overair.server.packages.model import Configuration, Installed, Package, PackageVersion, VersionStatus


class PackageStore(Protocol):
    """Rows of the catalogue (``store.SqlPackageStore``)."""

    def find(self, tx: Tx, account: AccountId, package: str) -> Package | None: ...
    def insert(self, tx: Tx, package: Package) -> None: ...
    def save(self, tx: Tx, package: Package) -> None: ...
    def delete(self, tx: Tx, account: AccountId, package: str) -> None: ...
    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[Package]: ...
    def find_version(self, tx: Tx, account: AccountId, package: str, version: str) -> PackageVersion | None: ...
    def insert_version(self, tx: Tx, version: PackageVersion) -> None: ...
    def save_version(self, tx: Tx, version: PackageVersion) -> None: ...
    def delete_version(self, tx: Tx, account: AccountId, package: str, version: str) -> None: ...
    def page_of_versions(
        self,
        tx: Tx,
        account: AccountId,
        package: str,
        *,
        status: VersionStatus | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[PackageVersion]: ...
    def configuration(self, tx: Tx, account: AccountId) -> Configuration: ...
    def save_configuration(self, tx: Tx, account: AccountId, configuration: Configuration) -> None: ...
    def installed(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Installed]: ...
    def set_installed(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        versions: Mapping[str, str | None],
        *,
        job: JobId,
        now: Instant,
    ) -> None: ...
    def forget_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...


class ServiceRoles(Protocol):
    """What the catalogue asks of roles (``access.service.AccessService``)."""

    def assume_as_service(self, tx: Tx, place: Place, role_arn: str, *, source_arn: str) -> Any: ...


class CallerRights(Protocol):
    """What this door asks of the callers' policies (``access.service.AccessService``)."""

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None: ...
    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None: ...


class ArtifactObjects(Protocol):
    """Where artifacts lie (``objects.service.ObjectsService``)."""

    def find(self, tx: Tx, place: Place, bucket: BucketName, key: ObjectKey, version: VersionId | None) -> Any: ...


class Things(Protocol):
    """Which things there are (``devices.service.DevicesService``)."""

    def has_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> bool: ...


class PackagesChanged(Protocol):
    """Who must know, in the same transaction, that the record of a thing's packages has changed. Implemented by the fleet
    index."""

    def packages_changed(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...


class Tags(Protocol):
    """Where tags are kept (``devices.tags.TagsService``)."""

    def accept(self, kind: str, exists: Callable[[Tx, AccountId, str], bool]) -> None: ...
    def set_new(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str] | None) -> None: ...
    def forget(self, tx: Tx, place: Place, arn: str) -> None: ...
