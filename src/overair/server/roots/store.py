"""This room's tables and SQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, KeyId, ThingName
from overair.basics.work import News, Tx
from overair.server.roots.model import OnlineKey, RootProbe, StoredRoot, read_stored_root
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, sql
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role

repositories: Final = Table(
    "uptane_repositories",
    metadata,
    account_column(),
    Column("repository", String(16), primary_key=True),
    Column("repository_id", String(36), nullable=False),
    instant_column("created_at"),
    instant_column("signed_at"),
)
"""``signed_at``: the clock at the last signature, which no later one may precede."""

root_documents: Final = Table(
    "root_documents",
    metadata,
    account_column(),
    Column("repository", String(16), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("flavour", String(16), primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("is_published", Boolean, nullable=False),
    instant_column("stored_at"),
)
"""Kept for ever: a device that was away for years follows the chain from where it stopped."""

online_keys: Final = Table(
    "role_keys",
    metadata,
    account_column(),
    Column("repository", String(16), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("keyring_key", String(36), nullable=False),
    instant_column("created_at"),
    instant_column("exported_at", nullable=True),
    instant_column("unlisted_at", nullable=True),
)

root_probes: Final = Table(
    "root_probes",
    metadata,
    account_column(),
    Column("repository", String(16), primary_key=True),
    Column("thing", String(128), primary_key=True),
    Column("version", Integer, nullable=False),
    instant_column("at"),
)


_of_flavour: Final = (
    root_documents.c.account == bindparam("b_account"),
    root_documents.c.repository == bindparam("b_repository"),
    root_documents.c.flavour == bindparam("b_flavour"),
)
_newest: Final = HotStatement(select(func.max(root_documents.c.version)).where(*_of_flavour))
"""Asked at every poll of every device."""
_newest_published: Final = HotStatement(
    select(func.max(root_documents.c.version)).where(*_of_flavour, root_documents.c.is_published.is_(True))
)


_of_repository: Final = tuple(
    (table.c.account == bindparam("b_account"), table.c.repository == bindparam("b_repository"))
    for table in (repositories, root_documents, online_keys)
)
# What each signature for a single device asks.
_signed_at: Final = HotStatement(select(repositories.c.signed_at).where(*_of_repository[0]))
_find: Final = HotStatement(
    select(*root_documents.c).where(*_of_repository[1], root_documents.c.version == bindparam("b_version"))
)
_keys: Final = HotStatement(
    select(*online_keys.c).where(*_of_repository[2]).order_by(online_keys.c.created_at, online_keys.c.key_id)
)
_DOCUMENT_COLUMNS: Final = tuple(column.name for column in root_documents.columns)
_KEY_COLUMNS: Final = tuple(column.name for column in online_keys.columns)


class SqlRootStore:
    """``RootStore`` over SQL. ``changed`` is told after each commit that changes a chain: for whoever keeps it in memory."""

    def __init__(self, *, changed: Callable[[AccountId, Repository], None] | None = None) -> None:
        self._changed = changed

    def begin(self, tx: Tx, account: AccountId, repository: Repository, repository_id: str, *, now: Instant) -> None:
        sql(tx).execute(
            insert(repositories).values(
                account=account, repository=repository.value, repository_id=repository_id, created_at=now, signed_at=now
            )
        )

    def repository_id(self, tx: Tx, account: AccountId, repository: Repository) -> str | None:
        query = select(repositories.c.repository_id).where(
            repositories.c.account == account, repositories.c.repository == repository.value
        )
        return sql(tx).execute(query).scalar_one_or_none()

    def repositories(self, tx: Tx) -> Sequence[tuple[AccountId, Repository]]:
        query = select(repositories.c.account, repositories.c.repository).order_by(
            repositories.c.account, repositories.c.repository
        )
        return [(AccountId(row.account), Repository(row.repository)) for row in sql(tx).execute(query)]

    def last_signed_at(self, tx: Tx, account: AccountId, repository: Repository) -> Instant:
        found = _signed_at.first(tx, b_account=account, b_repository=repository.value)
        assert found is not None, "a repository begins with a signature"
        return Instant(found[0])

    def signed_now(self, tx: Tx, account: AccountId, repository: Repository, *, now: Instant) -> None:
        sql(tx).execute(
            update(repositories)
            .where(repositories.c.account == account, repositories.c.repository == repository.value)
            .values(signed_at=now)
        )

    def find(self, tx: Tx, account: AccountId, repository: Repository, version: int) -> StoredRoot | None:
        rows = _find.all(tx, b_account=account, b_repository=repository.value, b_version=version)
        return _stored([SimpleNamespace(**dict(zip(_DOCUMENT_COLUMNS, row, strict=True))) for row in rows])

    def document(
        self, tx: Tx, account: AccountId, repository: Repository, version: int, flavour: Flavour, *, published_only: bool
    ) -> bytes | None:
        query = select(root_documents.c.document).where(
            root_documents.c.account == account,
            root_documents.c.repository == repository.value,
            root_documents.c.version == version,
            root_documents.c.flavour == flavour.value,
        )
        if published_only:
            query = query.where(root_documents.c.is_published.is_(True))
        found = sql(tx).execute(query).scalar_one_or_none()
        return None if found is None else bytes(found)

    def newest_version(
        self, tx: Tx, account: AccountId, repository: Repository, flavour: Flavour, *, published_only: bool
    ) -> int:
        found = (_newest_published if published_only else _newest).first(
            tx, b_account=account, b_repository=repository.value, b_flavour=flavour.value
        )
        return 0 if found is None or found[0] is None else int(found[0])

    def add(self, tx: Tx, account: AccountId, stored: StoredRoot) -> None:
        """All flavours of ``stored``; of a version that is there already, another one."""
        sql(tx).execute(
            insert(root_documents),
            [
                {
                    "account": account,
                    "repository": stored.repository.value,
                    "version": stored.version,
                    "flavour": flavour.value,
                    "document": document,
                    "is_published": stored.is_published,
                    "stored_at": stored.stored_at,
                }
                for flavour, document in stored.documents.items()
            ],
        )
        self._tell(tx, account, stored.repository)

    def publish(self, tx: Tx, account: AccountId, repository: Repository, flavours: Collection[Flavour]) -> None:
        sql(tx).execute(
            update(root_documents)
            .where(
                root_documents.c.account == account,
                root_documents.c.repository == repository.value,
                root_documents.c.flavour.in_([flavour.value for flavour in flavours]),
                root_documents.c.is_published.is_(False),
            )
            .values(is_published=True)
        )
        self._tell(tx, account, repository)

    def clear(self, tx: Tx, account: AccountId, repository: Repository) -> None:
        for table in (root_documents, repositories):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.repository == repository.value))
        self._tell(tx, account, repository)

    def _tell(self, tx: Tx, account: AccountId, repository: Repository) -> None:
        changed = self._changed
        if changed is not None:
            tx.after_commit(lambda: changed(account, repository))
            tx.tell_nodes(News("roots", (account,)))

    def probes(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[RootProbe]:
        query = (
            select(root_probes)
            .where(root_probes.c.account == account, root_probes.c.repository == repository.value)
            .order_by(root_probes.c.thing)
        )
        return [
            RootProbe(thing=ThingName(row.thing), version=row.version, at=Instant(row.at)) for row in sql(tx).execute(query)
        ]

    def probed(
        self, tx: Tx, account: AccountId, repository: Repository, thing: ThingName, version: int, *, now: Instant
    ) -> None:
        of_thing = (
            root_probes.c.account == account,
            root_probes.c.repository == repository.value,
            root_probes.c.thing == thing,
        )
        last = sql(tx).execute(select(root_probes.c.version).where(*of_thing)).scalar_one_or_none()
        if last is None:
            sql(tx).execute(
                insert(root_probes).values(account=account, repository=repository.value, thing=thing, version=version, at=now)
            )
        elif last < version:
            sql(tx).execute(update(root_probes).where(*of_thing).values(version=version, at=now))

    def keys(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[OnlineKey]:
        rows = _keys.all(tx, b_account=account, b_repository=repository.value)
        return [_key(SimpleNamespace(**dict(zip(_KEY_COLUMNS, row, strict=True)))) for row in rows]

    def add_key(self, tx: Tx, account: AccountId, key: OnlineKey) -> None:
        sql(tx).execute(
            insert(online_keys).values(
                account=account,
                repository=key.repository.value,
                key_id=key.key_id,
                role=key.role.value,
                keyring_key=key.keyring_key,
                created_at=key.created_at,
                exported_at=key.exported_at,
                unlisted_at=key.unlisted_at,
            )
        )

    def exported(self, tx: Tx, account: AccountId, repository: Repository, key_id: str, *, now: Instant) -> None:
        sql(tx).execute(update(online_keys).where(*_one_key(account, repository, key_id)).values(exported_at=now))

    def unlisted(self, tx: Tx, account: AccountId, repository: Repository, key_id: str, *, at: Instant | None) -> None:
        sql(tx).execute(update(online_keys).where(*_one_key(account, repository, key_id)).values(unlisted_at=at))

    def drop_key(self, tx: Tx, account: AccountId, repository: Repository, key_id: str) -> KeyId | None:
        found = _one_key(account, repository, key_id)
        keyring_key = sql(tx).execute(select(online_keys.c.keyring_key).where(*found)).scalar_one_or_none()
        if keyring_key is None:
            return None
        sql(tx).execute(delete(online_keys).where(*found))
        return KeyId(keyring_key)


def _one_key(account: AccountId, repository: Repository, key_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        online_keys.c.account == account,
        online_keys.c.repository == repository.value,
        online_keys.c.key_id == key_id,
    )


def _stored(rows: Sequence[Any]) -> StoredRoot | None:
    uptane = next((row for row in rows if row.flavour == Flavour.UPTANE.value), None)
    if uptane is None:
        return None
    documents = {Flavour(row.flavour): bytes(row.document) for row in rows}
    return StoredRoot(
        repository=Repository(uptane.repository),
        version=uptane.version,
        root=read_stored_root(documents[Flavour.UPTANE], Flavour.UPTANE),
        documents=documents,
        is_published=bool(uptane.is_published),
        stored_at=Instant(uptane.stored_at),
    )


def _key(row: Any) -> OnlineKey:
    return OnlineKey(
        repository=Repository(row.repository),
        role=Role(row.role),
        key_id=row.key_id,
        keyring_key=KeyId(row.keyring_key),
        created_at=Instant(row.created_at),
        exported_at=None if row.exported_at is None else Instant(row.exported_at),
        unlisted_at=None if row.unlisted_at is None else Instant(row.unlisted_at),
    )
