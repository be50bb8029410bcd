"""The SQL of packages, their versions, and what is on things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.sql.selectable import Select

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.packages.model import (
    Artifact,
    Configuration,
    Installed,
    Package,
    PackageVersion,
    VersionStatus,
)
from overair.server.packages.tables import package_configurations, package_versions, packages, thing_packages
from overair.server.storage.work import is_writable, sql


class SqlPackageStore:
    """``ports.PackageStore`` over SQL."""

    # Packages -------------------------------------------------------------------------------------------------------------

    def find(self, tx: Tx, account: AccountId, package: str) -> Package | None:
        """A unit that may write holds the row until it ends: whatever changes a package or one of its versions looks at the
        package first."""
        query = select(*packages.c).where(packages.c.account == account, packages.c.name == package)
        row = sql(tx).execute(_held(tx, query)).mappings().first()
        return None if row is None else _package(row)

    def insert(self, tx: Tx, package: Package) -> None:
        row = {"account": package.place.account, "name": package.name, "region": package.place.region}
        sql(tx).execute(insert(packages).values({**row, "created_at": package.created_at, **_of_package(package)}))

    def save(self, tx: Tx, package: Package) -> None:
        this = (packages.c.account == package.place.account, packages.c.name == package.name)
        sql(tx).execute(update(packages).where(*this).values(_of_package(package)))

    def delete(self, tx: Tx, account: AccountId, package: str) -> None:
        sql(tx).execute(delete(packages).where(packages.c.account == account, packages.c.name == package))

    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[Package]:
        """By name."""
        query = select(*packages.c).where(packages.c.account == account)
        if after is not None:
            query = query.where(packages.c.name > after)
        return [_package(row) for row in sql(tx).execute(query.order_by(packages.c.name).limit(limit)).mappings()]

    # Versions -------------------------------------------------------------------------------------------------------------

    def find_version(self, tx: Tx, account: AccountId, package: str, version: str) -> PackageVersion | None:
        query = select(*package_versions.c).where(*_this_version(account, package, version))
        row = sql(tx).execute(query).mappings().first()
        return None if row is None else _version(row)

    def insert_version(self, tx: Tx, version: PackageVersion) -> None:
        row = {
            "account": version.place.account,
            "package": version.package,
            "name": version.name,
            "region": version.place.region,
            "created_at": version.created_at,
        }
        sql(tx).execute(insert(package_versions).values({**row, **_of_version(version)}))

    def save_version(self, tx: Tx, version: PackageVersion) -> None:
        this = _this_version(version.place.account, version.package, version.name)
        sql(tx).execute(update(package_versions).where(*this).values(_of_version(version)))

    def delete_version(self, tx: Tx, account: AccountId, package: str, version: str) -> None:
        sql(tx).execute(delete(package_versions).where(*_this_version(account, package, version)))

    def page_of_versions(
        self,
        tx: Tx,
        account: AccountId,
        package: str,
        *,
        status: VersionStatus | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[PackageVersion]:
        """By name."""
        query = select(*package_versions.c).where(package_versions.c.account == account, package_versions.c.package == package)
        if status is not None:
            query = query.where(package_versions.c.status == status.value)
        if after is not None:
            query = query.where(package_versions.c.name > after)
        rows = sql(tx).execute(query.order_by(package_versions.c.name).limit(limit)).mappings()
        return [_version(row) for row in rows]

    # Configuration --------------------------------------------------------------------------------------------------------

    def configuration(self, tx: Tx, account: AccountId) -> Configuration:
        row = (
            sql(tx)
            .execute(
                select(package_configurations.c.enabled, package_configurations.c.role_arn).where(
                    package_configurations.c.account == account
                )
            )
            .first()
        )
        return Configuration() if row is None else Configuration(enabled=row.enabled, role_arn=row.role_arn)

    def save_configuration(self, tx: Tx, account: AccountId, configuration: Configuration) -> None:
        values = {"enabled": configuration.enabled, "role_arn": configuration.role_arn}
        changed = update(package_configurations).where(package_configurations.c.account == account).values(values)
        if sql(tx).execute(changed).rowcount == 0:
            sql(tx).execute(insert(package_configurations).values(account=account, **values))

    # What is on things ----------------------------------------------------------------------------------------------------

    def installed(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Installed]:
        """By package, those that were taken off too."""
        query = select(*thing_packages.c).where(thing_packages.c.account == account, thing_packages.c.thing == thing)
        return [
            Installed(
                package=row.package,
                version=row.version,
                job=JobId(row.job),
                changed_at=Instant(row.changed_at),
                revision=row.revision,
            )
            for row in sql(tx).execute(query.order_by(thing_packages.c.package))
        ]

    def set_installed(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        versions: Mapping[str, str | None],
        *,
        job: JobId,
        now: Instant,
    ) -> None:
        """Write one revision of a thing's record."""
        of_thing = (thing_packages.c.account == account, thing_packages.c.thing == thing)
        last = sql(tx).execute(select(func.max(thing_packages.c.revision)).where(*of_thing)).scalar()
        values = {"job": job, "changed_at": now, "revision": 1 if last is None else last + 1}
        for package, version in versions.items():
            this = update(thing_packages).where(*of_thing, thing_packages.c.package == package)
            if sql(tx).execute(this.values(version=version, **values)).rowcount == 0:
                row = {"account": account, "thing": thing, "package": package, "version": version, **values}
                sql(tx).execute(insert(thing_packages).values(row))

    def forget_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        sql(tx).execute(delete(thing_packages).where(thing_packages.c.account == account, thing_packages.c.thing == thing))


def _held(tx: Tx, query: Select[Any]) -> Select[Any]:
    return query.with_for_update() if is_writable(tx) else query


def _this_version(account: AccountId, package: str, version: str) -> tuple[Any, ...]:
    return (
        package_versions.c.account == account,
        package_versions.c.package == package,
        package_versions.c.name == version,
    )


def _of_package(package: Package) -> dict[str, Any]:
    return {
        "description": package.description,
        "default_version": package.default_version,
        "client_token": package.client_token,
        "last_modified_at": package.last_modified_at,
    }


def _of_version(version: PackageVersion) -> dict[str, Any]:
    return {
        "status": version.status.value,
        "description": version.description,
        "attributes": msgspec.json.encode(version.attributes).decode(),
        "artifact": None if version.artifact is None else msgspec.json.encode(version.artifact).decode(),
        "recipe": version.recipe,
        "client_token": version.client_token,
        "last_modified_at": version.last_modified_at,
    }


def _package(row: Mapping[Any, Any]) -> Package:
    return Package(
        place=Place(row["region"], AccountId(row["account"])),
        name=row["name"],
        description=row["description"],
        default_version=row["default_version"],
        client_token=row["client_token"],
        created_at=Instant(row["created_at"]),
        last_modified_at=Instant(row["last_modified_at"]),
    )


def _version(row: Mapping[Any, Any]) -> PackageVersion:
    return PackageVersion(
        place=Place(row["region"], AccountId(row["account"])),
        package=row["package"],
        name=row["name"],
        status=VersionStatus(row["status"]),
        description=row["description"],
        attributes=msgspec.json.decode(row["attributes"], type=dict[str, str]),
        artifact=None if row["artifact"] is None else msgspec.json.decode(row["artifact"], type=Artifact),
        recipe=row["recipe"],
        client_token=row["client_token"],
        created_at=Instant(row["created_at"]),
        last_modified_at=Instant(row["last_modified_at"]),
    )
