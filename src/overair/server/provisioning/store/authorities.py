"""Rows of operators' own fleet authorities."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import delete, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, GroupName, PolicyName, ThingTypeName
from overair.basics.work import Tx
from overair.server.provisioning.model import AuthorityId, CaRegistration, FirstContact, FleetAuthority, FleetRule, Renewal
from overair.server.provisioning.store.tables import fleet_authorities, registration_codes
from overair.server.storage.work import sql

_GROUPS: Final = msgspec.json.Decoder(list[str])
_REGISTRATION: Final = msgspec.json.Decoder(CaRegistration)


class SqlAuthorityRows:
    """``ports.AuthorityStore``."""

    def find_authority(self, tx: Tx, account: AccountId, authority: AuthorityId) -> FleetAuthority | None:
        found = self.find_authority_anywhere(tx, authority)
        return found if found is not None and found.account == account else None

    def find_authority_anywhere(self, tx: Tx, authority: AuthorityId) -> FleetAuthority | None:
        table = fleet_authorities
        row = sql(tx).execute(select(*table.c).where(table.c.id == authority)).one_or_none()
        return None if row is None else _authority(row)

    def authorities_named(self, tx: Tx, subject_hashes: Collection[str]) -> Sequence[FleetAuthority]:
        table = fleet_authorities
        rows = sql(tx).execute(
            select(*table.c).where(table.c.subject_sha256.in_(sorted(subject_hashes))).order_by(table.c.created_at, table.c.id)
        )
        return [_authority(row) for row in rows]

    def put_authority(self, tx: Tx, authority: FleetAuthority) -> None:
        self.delete_authority(tx, authority.account, authority.id)
        rule = authority.rule
        sql(tx).execute(
            insert(fleet_authorities).values(
                account=authority.account,
                id=authority.id,
                pem=authority.pem,
                fingerprint=authority.fingerprint,
                subject=authority.subject,
                subject_sha256=authority.subject_sha256,
                name=authority.name,
                not_before=authority.not_before,
                not_after=authority.not_after,
                first_contact=rule.first_contact.value,
                device_id_pattern=rule.device_id_pattern,
                thing_type=rule.thing_type,
                groups=msgspec.json.encode(list(rule.groups)).decode(),
                policy=rule.policy,
                renewal=rule.renewal.value,
                renewal_overlap_days=rule.renewal_overlap_days,
                created_at=authority.created_at,
                created_by=authority.created_by,
                registration=None if authority.registration is None else msgspec.json.encode(authority.registration).decode(),
            )
        )

    def delete_authority(self, tx: Tx, account: AccountId, authority: AuthorityId) -> None:
        table = fleet_authorities
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.id == authority))

    def authorities(self, tx: Tx, account: AccountId) -> Sequence[FleetAuthority]:
        table = fleet_authorities
        rows = sql(tx).execute(select(*table.c).where(table.c.account == account).order_by(table.c.created_at, table.c.id))
        return [_authority(row) for row in rows]

    # Registration codes -----------------------------------------------------------------------------------------------------

    def find_registration_code(self, tx: Tx, account: AccountId) -> str | None:
        table = registration_codes
        return sql(tx).execute(select(table.c.code).where(table.c.account == account)).scalar_one_or_none()

    def insert_registration_code(self, tx: Tx, account: AccountId, code: str) -> None:
        sql(tx).execute(insert(registration_codes).values(account=account, code=code))

    def delete_registration_code(self, tx: Tx, account: AccountId) -> bool:
        table = registration_codes
        return sql(tx).execute(delete(table).where(table.c.account == account)).rowcount > 0


def _authority(row: Any) -> FleetAuthority:
    return FleetAuthority(
        account=AccountId(row.account),
        id=AuthorityId(row.id),
        pem=row.pem,
        fingerprint=CertificateId(row.fingerprint),
        subject=row.subject,
        subject_sha256=row.subject_sha256,
        name=row.name,
        not_before=Instant(row.not_before),
        not_after=Instant(row.not_after),
        rule=FleetRule(
            first_contact=FirstContact(row.first_contact),
            device_id_pattern=row.device_id_pattern,
            thing_type=None if row.thing_type is None else ThingTypeName(row.thing_type),
            groups=tuple(GroupName(group) for group in _GROUPS.decode(row.groups)),
            policy=PolicyName(row.policy),
            renewal=Renewal(row.renewal),
            renewal_overlap_days=row.renewal_overlap_days,
        ),
        created_at=Instant(row.created_at),
        created_by=row.created_by,
        registration=None if row.registration is None else _REGISTRATION.decode(row.registration),
    )
