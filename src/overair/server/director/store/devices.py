"""Vehicles, their ECUs, and what ran on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, EcuSerial, ThingName
from overair.basics.work import Tx
from overair.server.director.model import (
    INSTALLATIONS_KEPT_MAX,
    Device,
    DeviceStatus,
    Ecu,
    Image,
    InstallationRecord,
    Installed,
    Registered,
)
from overair.server.director.ports import DeviceQuery
from overair.server.director.store.rows import ecu_map, image, instant, public_key, text
from overair.server.director.tables import anomalies, devices, ecus, installations
from overair.server.storage.work import HotStatement, sql

_DEVICE_COLUMNS: Final = tuple(column.name for column in devices.columns)
_ECU_COLUMNS: Final = tuple(column.name for column in ecus.columns)
_this_device: Final = (devices.c.account == bindparam("b_account"), devices.c.thing == bindparam("b_thing"))
_find: Final = HotStatement(select(*devices.c).where(*_this_device))
_ecus_of: Final = HotStatement(
    select(*ecus.c)
    .where(ecus.c.account == bindparam("b_account"), ecus.c.thing == bindparam("b_thing"))
    .order_by(ecus.c.serial)
)
_any_ecu: Final = HotStatement(select(ecus.c.thing).where(ecus.c.account == bindparam("b_account")).limit(1))
_heard: Final = HotStatement(
    update(devices)
    .where(*_this_device, devices.c.registration == bindparam("b_registration"))
    .values(last_seen_at=bindparam("b_now"), last_manifest_at=bindparam("b_now"), report_counter=bindparam("b_counter"))
)
_installed: Final = HotStatement(
    update(ecus)
    .where(
        ecus.c.account == bindparam("b_account"), ecus.c.thing == bindparam("b_thing"), ecus.c.serial == bindparam("b_serial")
    )
    .values(
        installed_name=bindparam("b_name"),
        installed_length=bindparam("b_length"),
        installed_hashes=bindparam("b_hashes"),
        installed_since=bindparam("b_since"),
        installed_for=bindparam("b_for"),
    )
)
_this_ecu: Final = (
    installations.c.account == bindparam("b_account"),
    installations.c.thing == bindparam("b_thing"),
    installations.c.serial == bindparam("b_serial"),
)
_last_installation: Final = HotStatement(select(func.max(installations.c.sequence)).where(*_this_ecu))
_insert_installation: Final = HotStatement(
    insert(installations), columns=tuple(column.name for column in installations.columns)
)
_set_status: Final = HotStatement(update(devices).where(*_this_device).values(status=bindparam("b_status")))


class SqlVehicleStore:
    """``ports.VehicleStore`` over SQL."""

    # Vehicles -------------------------------------------------------------------------------------------------------------

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> Device | None:
        row = _find.first(tx, b_account=account, b_thing=thing)
        return None if row is None else _device(dict(zip(_DEVICE_COLUMNS, row, strict=True)))

    def registered(self, tx: Tx, account: AccountId, thing: ThingName) -> Registered | None:
        """A vehicle with its ECUs, without those that were retired. None: it has none."""
        device = self.find(tx, account, thing)
        if device is None or device.primary is None:
            return None
        return Registered(device=device, ecus={ecu.serial: ecu for ecu in self.ecus(tx, account, thing) if not ecu.retired_at})

    def registered_among(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> Mapping[ThingName, Registered]:
        """Those of some things that have ECUs."""
        if len(things) == 1:
            found = self.registered(tx, account, things[0])
            return {things[0]: found} if found is not None else {}
        query = select(*devices.c).where(
            devices.c.account == account, devices.c.thing.in_(things), devices.c.primary_serial.is_not(None)
        )
        known = {ThingName(row["thing"]): _device(row) for row in sql(tx).execute(query).mappings()}
        parts: dict[ThingName, dict[EcuSerial, Ecu]] = {thing: {} for thing in known}
        query = (
            select(*ecus.c)
            .where(ecus.c.account == account, ecus.c.thing.in_(list(known)), ecus.c.retired_at.is_(None))
            .order_by(ecus.c.serial)
        )
        for row in sql(tx).execute(query).mappings():
            ecu = _ecu(row)
            parts[ThingName(row["thing"])][ecu.serial] = ecu
        return {thing: Registered(device=device, ecus=parts[thing]) for thing, device in known.items()}

    def has_any(self, tx: Tx, account: AccountId) -> bool:
        """Whether the account has any ECU at all: what every job's planning asks first."""
        return _any_ecu.first(tx, b_account=account) is not None

    def ecus(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Ecu]:
        """All by serial, retired ones included."""
        rows = _ecus_of.all(tx, b_account=account, b_thing=thing)
        return [_ecu(dict(zip(_ECU_COLUMNS, row, strict=True))) for row in rows]

    def add(self, tx: Tx, account: AccountId, device: Device) -> None:
        sql(tx).execute(insert(devices).values(account=account, thing=device.thing, **_device_values(device)))

    def save(self, tx: Tx, account: AccountId, device: Device) -> None:
        statement = update(devices).where(devices.c.account == account, devices.c.thing == device.thing)
        sql(tx).execute(statement.values(**_device_values(device)))

    def set_status(self, tx: Tx, account: AccountId, things: Collection[ThingName], status: DeviceStatus) -> None:
        if len(things) == 1:
            _set_status.run(tx, b_account=account, b_thing=next(iter(things)), b_status=status.value)
        elif things:
            statement = update(devices).where(devices.c.account == account, devices.c.thing.in_(things))
            sql(tx).execute(statement.values(status=status.value))

    def heard(
        self, tx: Tx, account: AccountId, thing: ThingName, *, registration: int, counter: int | None, now: Instant
    ) -> bool:
        """A manifest came. False: the vehicle has registered again since ``registration``."""
        found = _heard.run(tx, b_account=account, b_thing=thing, b_registration=registration, b_counter=counter, b_now=now)
        return found == 1

    def forget(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """The thing is gone: all that this store keeps of it."""
        for table in (devices, ecus, installations):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))

    def page(self, tx: Tx, account: AccountId, query: DeviceQuery) -> tuple[int, Sequence[Device]]:
        """(how many there are in all, those of the page)."""
        rows = select(*devices.c).where(devices.c.account == account)
        if query.name_contains:
            needle = f"%{_escaped(query.name_contains.lower())}%"
            names = (devices.c.thing, devices.c.name)
            rows = rows.where(or_(*(func.lower(name).like(needle, escape="\\") for name in names)))
        if query.things is not None:
            rows = rows.where(devices.c.thing.in_(query.things))
        if query.status is not None:
            rows = rows.where(devices.c.status == query.status.value)
        if query.hardware_ids:
            having = select(ecus.c.thing).where(
                ecus.c.account == account, ecus.c.hardware_id.in_(query.hardware_ids), ecus.c.retired_at.is_(None)
            )
            rows = rows.where(devices.c.thing.in_(having))
        if query.not_seen_since is not None:
            rows = rows.where(or_(devices.c.last_seen_at.is_(None), devices.c.last_seen_at < query.not_seen_since))
        if query.with_anomalies:
            rows = rows.where(devices.c.thing.in_(select(anomalies.c.thing).where(anomalies.c.account == account)))
        total = int(sql(tx).execute(select(func.count()).select_from(rows.subquery())).scalar_one())
        order = {
            "name": (devices.c.thing,),
            "createdat": (devices.c.created_at, devices.c.thing),
            "lastseen": (func.coalesce(devices.c.last_seen_at, 0), devices.c.thing),
        }[query.sort_by]
        rows = rows.order_by(*(column.desc() if query.descending else column for column in order))
        found = sql(tx).execute(rows.offset(query.offset).limit(query.limit)).mappings()
        return total, [_device(row) for row in found]

    def count_by_status(self, tx: Tx, account: AccountId) -> Mapping[DeviceStatus, int]:
        query = select(devices.c.status, func.count()).where(devices.c.account == account).group_by(devices.c.status)
        return {DeviceStatus(status): int(count) for status, count in sql(tx).execute(query)}

    def hardware_ids(self, tx: Tx, account: AccountId, *, offset: int, limit: int) -> tuple[int, Sequence[str]]:
        """(how many there are, those of the page)."""
        kinds = select(ecus.c.hardware_id).where(ecus.c.account == account, ecus.c.retired_at.is_(None)).distinct()
        total = int(sql(tx).execute(select(func.count()).select_from(kinds.subquery())).scalar_one())
        found = sql(tx).execute(kinds.order_by(ecus.c.hardware_id).offset(offset).limit(limit)).scalars()
        return total, list(found)

    # ECUs -----------------------------------------------------------------------------------------------------------------

    def put_ecus(self, tx: Tx, account: AccountId, thing: ThingName, changed: Sequence[Ecu]) -> None:
        """Write these in place of those with the same serials; others stay."""
        if not changed:
            return
        serials = [ecu.serial for ecu in changed]
        sql(tx).execute(delete(ecus).where(ecus.c.account == account, ecus.c.thing == thing, ecus.c.serial.in_(serials)))
        sql(tx).execute(insert(ecus), [_ecu_values(account, thing, ecu) for ecu in changed])

    def set_installed(
        self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial, installed: Installed, *, correlation_id: str
    ) -> None:
        """What runs on an ECU has changed; kept in its history."""
        _installed.run(
            tx,
            b_account=account,
            b_thing=thing,
            b_serial=serial,
            b_name=installed.image.name,
            b_length=installed.image.length,
            b_hashes=text(installed.image.hashes),
            b_since=installed.since,
            b_for=None if installed.named_for is None else text(installed.named_for),
        )
        found = _last_installation.first(tx, b_account=account, b_thing=thing, b_serial=serial)
        last = int(found[0]) if found is not None and found[0] is not None else 0
        _insert_installation.run(
            tx,
            account=account,
            thing=thing,
            serial=serial,
            sequence=last + 1,
            name=installed.image.name,
            length=installed.image.length,
            hashes=text(installed.image.hashes),
            at=installed.since,
            correlation_id=correlation_id,
        )
        if last + 1 > INSTALLATIONS_KEPT_MAX:
            mine = (installations.c.account == account, installations.c.thing == thing, installations.c.serial == serial)
            sql(tx).execute(delete(installations).where(*mine, installations.c.sequence <= last + 1 - INSTALLATIONS_KEPT_MAX))

    def set_named_for(
        self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial, named_for: Mapping[EcuSerial, str]
    ) -> None:
        """What runs on an ECU turns out to be what we assigned, under this ECU map."""
        statement = update(ecus).where(ecus.c.account == account, ecus.c.thing == thing, ecus.c.serial == serial)
        sql(tx).execute(statement.values(installed_for=text(named_for)))

    def installations(
        self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial | None, *, offset: int, limit: int
    ) -> tuple[int, Sequence[InstallationRecord]]:
        """(how many are kept, those of the page), newest first; of one ECU or of all."""
        rows = select(*installations.c).where(installations.c.account == account, installations.c.thing == thing)
        if serial is not None:
            rows = rows.where(installations.c.serial == serial)
        total = int(sql(tx).execute(select(func.count()).select_from(rows.subquery())).scalar_one())
        rows = rows.order_by(installations.c.at.desc(), installations.c.serial, installations.c.sequence.desc())
        found = [
            InstallationRecord(
                sequence=row["sequence"],
                serial=EcuSerial(row["serial"]),
                image=image(row["name"], row["length"], row["hashes"]),
                at=Instant(row["at"]),
                correlation_id=row["correlation_id"],
            )
            for row in sql(tx).execute(rows.offset(offset).limit(limit)).mappings()
        ]
        return total, found

    def count_installed(self, tx: Tx, account: AccountId, names: Collection[str]) -> Mapping[str, int]:
        """ECUs by the name of what runs on them, of these names."""
        query = (
            select(ecus.c.installed_name, func.count())
            .where(ecus.c.account == account, ecus.c.installed_name.in_(names), ecus.c.retired_at.is_(None))
            .group_by(ecus.c.installed_name)
        )
        return {str(name): int(count) for name, count in sql(tx).execute(query)}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _device_values(device: Device) -> dict[str, Any]:
    return {
        "primary_serial": device.primary,
        "registration": device.registration,
        "status": device.status.value,
        "created_at": device.created_at,
        "registered_at": device.registered_at,
        "last_seen_at": device.last_seen_at,
        "last_manifest_at": device.last_manifest_at,
        "report_counter": device.report_counter,
        "name": device.name,
        "device_type": device.device_type,
        "notes": device.notes,
    }


def _device(row: Mapping[Any, Any]) -> Device:
    primary = row["primary_serial"]
    return Device(
        thing=ThingName(row["thing"]),
        primary=None if primary is None else EcuSerial(primary),
        registration=row["registration"],
        status=DeviceStatus(row["status"]),
        created_at=Instant(row["created_at"]),
        registered_at=instant(row["registered_at"]),
        last_seen_at=instant(row["last_seen_at"]),
        last_manifest_at=instant(row["last_manifest_at"]),
        report_counter=row["report_counter"],
        name=row["name"],
        device_type=row["device_type"],
        notes=row["notes"],
    )


def _ecu_values(account: AccountId, thing: ThingName, ecu: Ecu) -> dict[str, Any]:
    installed = ecu.installed
    return {
        "account": account,
        "thing": thing,
        "serial": ecu.serial,
        "hardware_id": ecu.hardware_id,
        "key_type": ecu.key.type.value,
        "key_der": ecu.key.spki_der,
        "is_primary": ecu.is_primary,
        "registered_at": ecu.registered_at,
        "retired_at": ecu.retired_at,
        "installed_name": None if installed is None else installed.image.name,
        "installed_length": None if installed is None else installed.image.length,
        "installed_hashes": None if installed is None else text(installed.image.hashes),
        "installed_since": None if installed is None else installed.since,
        "installed_for": None if installed is None or installed.named_for is None else text(installed.named_for),
    }


def _ecu(row: Mapping[Any, Any]) -> Ecu:
    ecu = Ecu(
        serial=EcuSerial(row["serial"]),
        hardware_id=row["hardware_id"],
        key=public_key(row),
        is_primary=row["is_primary"],
        registered_at=Instant(row["registered_at"]),
        retired_at=instant(row["retired_at"]),
    )
    if row["installed_name"] is None:
        return ecu
    found: Image = image(row["installed_name"], row["installed_length"], row["installed_hashes"])
    since = Instant(row["installed_since"])
    return replace(ecu, installed=Installed(image=found, since=since, named_for=ecu_map(row["installed_for"])))
