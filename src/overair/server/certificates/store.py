"""The tables of certificates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, KeyId
from overair.basics.work import Tx
from overair.server.certificates.acm import AcmQuery
from overair.server.certificates.endings import DeviceEnds
from overair.server.certificates.model import (
    AcmCertificate,
    AuthorityPurpose,
    CertificateMode,
    CertificateStatus,
    CertificateSummary,
    CodeSigningFacts,
    DeviceCertificate,
    OwnCertificate,
)
from overair.server.certificates.tables import certificate_transfers, device_certificates
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, sql

own_certificates: Final = Table(
    "own_certificates",
    metadata,
    account_column(),
    Column("purpose", String(32), primary_key=True),
    Column("pem", Text, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("hosts", Text, nullable=False),
    instant_column("not_after"),
    instant_column("created_at"),
)

acm_certificates: Final = Table(
    "acm_certificates",
    metadata,
    account_column(),
    Column("id", String(64), primary_key=True),
    Column("region", String(64), nullable=False),
    Column("pem", Text, nullable=False),
    Column("chain_pem", Text, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("x509_version", Integer, nullable=False),
    # Names between commas, with one at each end, so that one can be searched for.
    Column("key_usages", Text, nullable=False),
    Column("extended_key_usages", Text, nullable=False),
    Column("extended_key_usage_oids", Text, nullable=False),
    Column("key_algorithm", String(32), nullable=False),
    Column("self_signed", Boolean, nullable=False),
    Column("serial", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("domain_name", Text, nullable=False),
    Column("alternative_names", Text, nullable=False),
    Column("signature_algorithm", String(64), nullable=False),
    instant_column("not_before"),
    instant_column("not_after"),
    instant_column("created_at"),
    instant_column("imported_at"),
    Column("tags", Text, nullable=False),
    Index("ix_acm_certificates_account_created_at_id", "account", "created_at", "id"),
)

OFFERS_LISTED_MAX: Final = 500
"""Certificates of other accounts that a list shows among the own ones."""

_FIND: Final = HotStatement(select(device_certificates).where(device_certificates.c.id == bindparam("b_id")))
_INSERT: Final = HotStatement(insert(device_certificates), columns=[column.name for column in device_certificates.columns])


class SqlCertificateStore:
    """Device certificates, our own, and ACM's, in SQL."""

    # Device certificates ------------------------------------------------------------------------------------------------

    def find(self, tx: Tx, certificate: CertificateId) -> DeviceCertificate | None:
        row = _FIND.first(tx, b_id=certificate)
        return None if row is None else _device_certificate(row)

    def insert(self, tx: Tx, certificate: DeviceCertificate) -> None:
        _INSERT.run(
            tx,
            account=certificate.account,
            id=certificate.id,
            pem=certificate.pem,
            status=certificate.status.value,
            mode=certificate.mode.value,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            created_at=certificate.created_at,
            modified_at=certificate.modified_at,
            version=certificate.version,
            generation_id=certificate.generation_id,
            origin=certificate.origin,
            key_sha256=certificate.key_sha256,
            **_succession(certificate),
        )

    def of_key(self, tx: Tx, account: AccountId, key_sha256: str, *, limit: int) -> Sequence[DeviceCertificate]:
        table = device_certificates
        wanted = select(*table.c).where(table.c.account == account, table.c.key_sha256 == key_sha256)
        rows = sql(tx).execute(wanted.order_by(table.c.created_at, table.c.id).limit(limit))
        return [_device_certificate(row) for row in rows]

    def set_status(self, tx: Tx, certificate: DeviceCertificate) -> None:
        sql(tx).execute(
            update(device_certificates)
            .where(device_certificates.c.account == certificate.account, device_certificates.c.id == certificate.id)
            .values(status=certificate.status.value, version=certificate.version, modified_at=certificate.modified_at)
        )

    def set_succession(self, tx: Tx, certificate: DeviceCertificate) -> None:
        sql(tx).execute(
            update(device_certificates)
            .where(device_certificates.c.account == certificate.account, device_certificates.c.id == certificate.id)
            .values(_succession(certificate))
        )

    def page_without_trust(
        self, tx: Tx, authority: CertificateId, now: Instant, *, after: str | None, limit: int
    ) -> Sequence[tuple[AccountId, CertificateId]]:
        table = device_certificates
        wanted = select(table.c.account, table.c.id).where(
            table.c.status == CertificateStatus.ACTIVE.value,
            table.c.not_after >= now,
            table.c.replaced_by.is_(None),
            or_(table.c.trusts.is_(None), table.c.trusts != authority),
        )
        if after is not None:
            wanted = wanted.where(table.c.id > after)
        return [
            (AccountId(account), CertificateId(identity))
            for account, identity in sql(tx).execute(wanted.order_by(table.c.id).limit(limit))
        ]

    def due_to_retire(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[DeviceCertificate]:
        old, new = device_certificates, device_certificates.alias("successors")
        was_used = exists().where(new.c.id == old.c.replaced_by, new.c.first_used_at.is_not(None))
        wanted = select(*old.c).where(old.c.retires_at <= now, old.c.retired_at.is_(None), was_used)
        rows = sql(tx).execute(wanted.order_by(old.c.retires_at, old.c.id).limit(limit))
        return [_device_certificate(row) for row in rows]

    def successors(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[DeviceCertificate]:
        table = device_certificates
        wanted = select(*table.c).where(table.c.account == account, table.c.replaces.is_not(None))
        if after is not None:
            wanted = wanted.where(table.c.id > after)
        rows = sql(tx).execute(wanted.order_by(table.c.id).limit(limit))
        return [_device_certificate(row) for row in rows]

    def whole_page(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[DeviceCertificate]:
        table = device_certificates
        query = select(*table.c).where(table.c.account == account)
        rows = sql(tx).execute(_by_creation(query, table, after=after, ascending=True).limit(limit))
        return [_device_certificate(row) for row in rows]

    def move(self, tx: Tx, certificate: DeviceCertificate, source: AccountId) -> None:
        sql(tx).execute(
            update(device_certificates)
            .where(device_certificates.c.account == source, device_certificates.c.id == certificate.id)
            .values(
                account=certificate.account,
                origin=certificate.origin,
                status=certificate.status.value,
                version=certificate.version,
                modified_at=certificate.modified_at,
                replaces=certificate.replaces,
                replaced_by=certificate.replaced_by,
                first_used_at=certificate.first_used_at,
                retires_at=certificate.retires_at,
                retired_at=certificate.retired_at,
                trusts=certificate.trusts,
            )
        )

    def drop_transfer(self, tx: Tx, certificate: CertificateId) -> None:
        transfers = certificate_transfers
        sql(tx).execute(delete(transfers).where(transfers.c.certificate_id == certificate))

    def delete(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        self.drop_transfer(tx, certificate)
        sql(tx).execute(
            delete(device_certificates).where(device_certificates.c.account == account, device_certificates.c.id == certificate)
        )

    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        after: tuple[int, str] | None,
        limit: int,
        ascending: bool,
        origin: str | None = None,
    ) -> Sequence[CertificateSummary]:
        table = device_certificates
        query = select(table.c.id, table.c.status, table.c.mode, table.c.created_at)
        offered = [] if origin is not None else self._offered(tx, account)
        of_account = table.c.account == account
        query = query.where(or_(of_account, table.c.id.in_(offered)) if offered else of_account)
        if origin is not None:
            query = query.where(table.c.origin == origin)
        rows = sql(tx).execute(_by_creation(query, table, after=after, ascending=ascending).limit(limit))
        return [
            CertificateSummary(
                id=CertificateId(identity),
                status=CertificateStatus(status),
                mode=CertificateMode(mode),
                created_at=Instant(created_at),
            )
            for identity, status, mode, created_at in rows
        ]

    @staticmethod
    def _offered(tx: Tx, account: AccountId) -> Sequence[str]:
        """Certificates of others that an account may accept."""
        table = certificate_transfers
        pending = (table.c.target == account, table.c.accepted_at.is_(None), table.c.rejected_at.is_(None))
        wanted = select(table.c.certificate_id).where(*pending).order_by(table.c.certificate_id).limit(OFFERS_LISTED_MAX)
        return list(sql(tx).execute(wanted).scalars())

    # Our own ------------------------------------------------------------------------------------------------------------

    def find_own(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> OwnCertificate | None:
        table = own_certificates
        row = (
            sql(tx)
            .execute(
                select(table.c.pem, table.c.key_id, table.c.hosts, table.c.not_after, table.c.created_at).where(
                    table.c.account == account, table.c.purpose == purpose.value
                )
            )
            .one_or_none()
        )
        if row is None:
            return None
        return OwnCertificate(
            account=account,
            purpose=purpose,
            pem=row.pem,
            key_id=KeyId(row.key_id),
            hosts=tuple(msgspec.json.decode(row.hosts, type=list[str])),
            not_after=Instant(row.not_after),
            created_at=Instant(row.created_at),
        )

    def all_own(self, tx: Tx, account: AccountId) -> Sequence[OwnCertificate]:
        table = own_certificates
        purposes = sql(tx).execute(select(table.c.purpose).where(table.c.account == account).order_by(table.c.purpose))
        found = [self.find_own(tx, account, AuthorityPurpose(purpose)) for purpose in purposes.scalars().all()]
        return [each for each in found if each is not None]

    def device_ends(self, tx: Tx, account: AccountId, *, now: Instant, until: Instant) -> DeviceEnds:
        ends = device_certificates.c.not_after
        lasting = case((ends >= now, ends))
        soon, ended = case((ends.between(now, until), 1)), case((ends < now, 1))
        row = (
            sql(tx)
            .execute(
                select(func.min(lasting), func.count(soon), func.count(ended)).where(
                    device_certificates.c.account == account,
                    device_certificates.c.status == CertificateStatus.ACTIVE.value,
                )
            )
            .one()
        )
        first = None if row[0] is None else Instant(row[0])
        return DeviceEnds(first=first, soon=row[1], ended=row[2])

    def put_own(self, tx: Tx, certificate: OwnCertificate) -> None:
        table = own_certificates
        sql(tx).execute(
            delete(table).where(table.c.account == certificate.account, table.c.purpose == certificate.purpose.value)
        )
        sql(tx).execute(
            insert(table).values(
                account=certificate.account,
                purpose=certificate.purpose.value,
                pem=certificate.pem,
                key_id=certificate.key_id,
                hosts=_json(list(certificate.hosts)),
                not_after=certificate.not_after,
                created_at=certificate.created_at,
            )
        )

    def delete_own(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> None:
        table = own_certificates
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.purpose == purpose.value))

    # ACM's --------------------------------------------------------------------------------------------------------------

    def find_acm(self, tx: Tx, account: AccountId, certificate: str) -> AcmCertificate | None:
        table = acm_certificates
        row = (
            sql(tx).execute(select(table).where(table.c.account == account, table.c.id == certificate)).mappings().one_or_none()
        )
        return None if row is None else _acm_certificate(row)

    def put_acm(self, tx: Tx, certificate: AcmCertificate) -> None:
        self.delete_acm(tx, certificate.account, certificate.id)
        facts = certificate.facts
        sql(tx).execute(
            insert(acm_certificates).values(
                account=certificate.account,
                id=certificate.id,
                region=certificate.arn.split(":")[3],
                pem=certificate.pem,
                chain_pem=certificate.chain_pem,
                key_id=certificate.key_id,
                x509_version=facts.version,
                key_usages=_between_commas(facts.key_usages),
                extended_key_usages=_between_commas(name for name, _ in facts.extended_key_usages),
                extended_key_usage_oids=_between_commas(oid for _, oid in facts.extended_key_usages),
                key_algorithm=facts.key_algorithm,
                self_signed=facts.self_signed,
                serial=certificate.serial,
                subject=certificate.subject,
                issuer=certificate.issuer,
                domain_name=certificate.domain_name,
                alternative_names=_json(list(certificate.alternative_names)),
                signature_algorithm=certificate.signature_algorithm,
                not_before=certificate.not_before,
                not_after=certificate.not_after,
                created_at=certificate.created_at,
                imported_at=certificate.imported_at,
                tags=_json(dict(certificate.tags)),
            )
        )

    def delete_acm(self, tx: Tx, account: AccountId, certificate: str) -> None:
        table = acm_certificates
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.id == certificate))

    def page_acm(
        self, tx: Tx, account: AccountId, query: AcmQuery, *, now: Instant, after: tuple[int, str] | None, limit: int
    ) -> Sequence[AcmCertificate]:
        table = acm_certificates
        wanted = select(table).where(table.c.account == account)
        if query.statuses:
            of_status = {"ISSUED": table.c.not_after >= now, "EXPIRED": table.c.not_after < now}
            conditions = [condition for status, condition in of_status.items() if status in query.statuses]
            # The other statuses belong to certificates that a cloud issues; there are none of those here.
            if not conditions:
                return []
            wanted = wanted.where(or_(*conditions))
        if query.key_algorithms:
            wanted = wanted.where(table.c.key_algorithm.in_(sorted(query.key_algorithms)))
        for column, usages in (
            (table.c.key_usages, query.key_usages),
            (table.c.extended_key_usages, query.extended_key_usages),
        ):
            if usages:
                wanted = wanted.where(or_(*(column.contains(f",{usage},", autoescape=True) for usage in sorted(usages))))
        rows = sql(tx).execute(_by_creation(wanted, table, after=after, ascending=query.ascending).limit(limit)).mappings()
        return [_acm_certificate(row) for row in rows]


def _by_creation(query: Any, table: Table, *, after: tuple[int, str] | None, ascending: bool) -> Any:
    """In order of (creation time, id), from just after a position."""
    order = tuple_(table.c.created_at, table.c.id)
    if after is not None:
        query = query.where(order > after if ascending else order < after)
    return query.order_by(*(column.asc() if ascending else column.desc() for column in (table.c.created_at, table.c.id)))


def _succession(certificate: DeviceCertificate) -> dict[str, Any]:
    return {
        "replaces": certificate.replaces,
        "replaced_by": certificate.replaced_by,
        "first_used_at": certificate.first_used_at,
        "retires_at": certificate.retires_at,
        "retired_at": certificate.retired_at,
        "trusts": certificate.trusts,
    }


def _device_certificate(row: Sequence[Any]) -> DeviceCertificate:
    account, identity, pem, status, mode, not_before, not_after, created_at, modified_at, version, generation, *later = row
    origin, key, replaces, replaced_by, first_used_at, retires_at, retired_at, trusts = later
    return DeviceCertificate(
        account=account,
        id=identity,
        pem=pem,
        status=CertificateStatus(status),
        mode=CertificateMode(mode),
        not_before=not_before,
        not_after=not_after,
        created_at=created_at,
        modified_at=modified_at,
        version=version,
        generation_id=generation,
        origin=origin,
        key_sha256=key,
        replaces=replaces,
        replaced_by=replaced_by,
        first_used_at=first_used_at,
        retires_at=retires_at,
        retired_at=retired_at,
        trusts=trusts,
    )


def _acm_certificate(row: Any) -> AcmCertificate:
    return AcmCertificate(
        account=row["account"],
        id=row["id"],
        arn=Place(row["region"], row["account"]).acm(row["id"]),
        pem=row["pem"],
        chain_pem=row["chain_pem"],
        key_id=KeyId(row["key_id"]),
        facts=CodeSigningFacts(
            version=row["x509_version"],
            key_usages=_from_commas(row["key_usages"]),
            extended_key_usages=tuple(
                zip(_from_commas(row["extended_key_usages"]), _from_commas(row["extended_key_usage_oids"]), strict=True)
            ),
            key_algorithm=row["key_algorithm"],
            self_signed=row["self_signed"],
        ),
        serial=row["serial"],
        subject=row["subject"],
        issuer=row["issuer"],
        domain_name=row["domain_name"],
        alternative_names=tuple(msgspec.json.decode(row["alternative_names"], type=list[str])),
        signature_algorithm=row["signature_algorithm"],
        not_before=Instant(row["not_before"]),
        not_after=Instant(row["not_after"]),
        created_at=Instant(row["created_at"]),
        imported_at=Instant(row["imported_at"]),
        tags=msgspec.json.decode(row["tags"], type=dict[str, str]),
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _between_commas(names: Any) -> str:
    return "," + "".join(f"{name}," for name in names)


def _from_commas(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)
