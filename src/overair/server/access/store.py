"""The tables of identities: users, roles, keys, sessions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import Row

from overair.basics.clock import Instant
from overair.basics.ids import AccessKeyId, AccountId
from overair.basics.work import Tx
from overair.server.access.keys import sealed_context
from overair.server.access.model import AccessKey, KeyStatus, LastUse, Role, Session, User
from overair.server.keyring.rewrapping import SealedRow
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

users: Final = Table(
    "access_users",
    metadata,
    account_column(),
    Column("name", String(64), primary_key=True),
    Column("path", String(512), nullable=False),
    Column("user_id", String(32), nullable=False),
    instant_column("created"),
    Column("boundary_arn", String(2048), nullable=True),
    Column("tags", Text, nullable=False),
)

roles: Final = Table(
    "access_roles",
    metadata,
    account_column(),
    Column("name", String(64), primary_key=True),
    Column("path", String(512), nullable=False),
    Column("role_id", String(32), nullable=False),
    instant_column("created"),
    Column("trust_document", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("session_s_max", Integer, nullable=False),
    Column("boundary_arn", String(2048), nullable=True),
    Column("tags", Text, nullable=False),
    Column("used_at", BigInteger, nullable=True),
    Column("used_region", String(64), nullable=True),
)

access_keys: Final = Table(
    "access_keys",
    metadata,
    account_column(),
    Column("key_id", String(32), primary_key=True),
    Column("user_name", String(64), nullable=False),
    Column("status", String(8), nullable=False),
    instant_column("created"),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("used_at", BigInteger, nullable=True),
    Column("used_service", String(64), nullable=True),
    Column("used_region", String(64), nullable=True),
    # A key id is unique on the server, and so names its account.
    Index("uq_access_keys_key_id", "key_id", unique=True),
    Index("ix_access_keys_account_user_name", "account", "user_name"),
)

sessions: Final = Table(
    "access_sessions",
    metadata,
    account_column(),
    Column("key_id", String(32), primary_key=True),
    Column("role_name", String(64), nullable=False),
    Column("session_name", String(64), nullable=False),
    instant_column("expires"),
    instant_column("created"),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("token_sha256", String(64), nullable=False),
    Column("policy_document", Text, nullable=True),
    Column("policy_arns", Text, nullable=True),
    Column("user_name", String(64), nullable=False, server_default=""),
    Column("tags", Text, nullable=True),
    Column("transitive_keys", Text, nullable=True),
    Index("uq_access_sessions_key_id", "key_id", unique=True),
    Index("ix_access_sessions_account_expires", "account", "expires"),
)


class SqlIdentityStore:
    """Users, roles, keys and sessions in the records."""

    # Users ------------------------------------------------------------------------------------------------------------

    def add_user(self, tx: Tx, user: User) -> None:
        sql(tx).execute(
            insert(users).values(
                account=user.account,
                name=user.name,
                path=user.path,
                user_id=user.user_id,
                created=user.created,
                boundary_arn=user.boundary_arn,
                tags=json.dumps(dict(user.tags)),
            )
        )

    def find_user(self, tx: Tx, account: AccountId, name: str) -> User | None:
        row = sql(tx).execute(select(users).where(users.c.account == account, users.c.name == name)).one_or_none()
        return None if row is None else _user(row)

    def list_users(self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int) -> list[User]:
        query = select(users).where(users.c.account == account, users.c.path.startswith(path_prefix, autoescape=True))
        if after is not None:
            query = query.where(users.c.name > after)
        return [_user(row) for row in sql(tx).execute(query.order_by(users.c.name).limit(limit))]

    def count_users(self, tx: Tx, account: AccountId) -> int:
        return _count(tx, users, account)

    def change_user(self, tx: Tx, account: AccountId, name: str, *, new_name: str, new_path: str) -> None:
        sql(tx).execute(update(users).where(*_named(users, account, name)).values(name=new_name, path=new_path))
        moved = update(access_keys).where(access_keys.c.account == account, access_keys.c.user_name == name)
        sql(tx).execute(moved.values(user_name=new_name))
        sql(tx).execute(update(sessions).where(*_of_user(account, name)).values(user_name=new_name))

    def set_user_boundary(self, tx: Tx, account: AccountId, name: str, boundary_arn: str | None) -> None:
        sql(tx).execute(update(users).where(*_named(users, account, name)).values(boundary_arn=boundary_arn))

    def set_user_tags(self, tx: Tx, account: AccountId, name: str, tags: Mapping[str, str]) -> None:
        sql(tx).execute(update(users).where(*_named(users, account, name)).values(tags=json.dumps(dict(tags))))

    def delete_user(self, tx: Tx, account: AccountId, name: str) -> None:
        sql(tx).execute(delete(users).where(users.c.account == account, users.c.name == name))
        sql(tx).execute(delete(sessions).where(*_of_user(account, name)))

    # Roles ------------------------------------------------------------------------------------------------------------

    def add_role(self, tx: Tx, role: Role) -> None:
        sql(tx).execute(
            insert(roles).values(
                account=role.account,
                name=role.name,
                path=role.path,
                role_id=role.role_id,
                created=role.created,
                trust_document=role.trust_document,
                description=role.description,
                session_s_max=role.session_s_max,
                boundary_arn=role.boundary_arn,
                tags=json.dumps(dict(role.tags)),
            )
        )

    def find_role(self, tx: Tx, account: AccountId, name: str) -> Role | None:
        row = sql(tx).execute(select(roles).where(roles.c.account == account, roles.c.name == name)).one_or_none()
        return None if row is None else _role(row)

    def list_roles(self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int) -> list[Role]:
        query = select(roles).where(roles.c.account == account, roles.c.path.startswith(path_prefix, autoescape=True))
        if after is not None:
            query = query.where(roles.c.name > after)
        return [_role(row) for row in sql(tx).execute(query.order_by(roles.c.name).limit(limit))]

    def set_trust(self, tx: Tx, account: AccountId, name: str, document: str) -> None:
        change = update(roles).where(roles.c.account == account, roles.c.name == name)
        sql(tx).execute(change.values(trust_document=document))

    def count_roles(self, tx: Tx, account: AccountId) -> int:
        return _count(tx, roles, account)

    def change_role(self, tx: Tx, account: AccountId, name: str, *, description: str, session_s_max: int) -> None:
        change = update(roles).where(*_named(roles, account, name))
        sql(tx).execute(change.values(description=description, session_s_max=session_s_max))

    def set_role_boundary(self, tx: Tx, account: AccountId, name: str, boundary_arn: str | None) -> None:
        sql(tx).execute(update(roles).where(*_named(roles, account, name)).values(boundary_arn=boundary_arn))

    def set_role_tags(self, tx: Tx, account: AccountId, name: str, tags: Mapping[str, str]) -> None:
        sql(tx).execute(update(roles).where(*_named(roles, account, name)).values(tags=json.dumps(dict(tags))))

    def delete_role(self, tx: Tx, account: AccountId, name: str) -> None:
        sql(tx).execute(delete(roles).where(roles.c.account == account, roles.c.name == name))
        sql(tx).execute(delete(sessions).where(sessions.c.account == account, sessions.c.role_name == name))

    # Boundaries -------------------------------------------------------------------------------------------------------

    def bounded_by(self, tx: Tx, account: AccountId, boundary_arn: str) -> tuple[list[User], list[Role]]:
        """The users and roles that a policy bounds, by name."""
        of_users = select(users).where(users.c.account == account, users.c.boundary_arn == boundary_arn)
        of_roles = select(roles).where(roles.c.account == account, roles.c.boundary_arn == boundary_arn)
        return (
            [_user(row) for row in sql(tx).execute(of_users.order_by(users.c.name))],
            [_role(row) for row in sql(tx).execute(of_roles.order_by(roles.c.name))],
        )

    def boundary_counts(self, tx: Tx, account: AccountId, arns: Sequence[str]) -> dict[str, int]:
        """How many users and roles each of the policies bounds; those that bound nobody are absent."""
        counts: dict[str, int] = {}
        for table in (users, roles):
            bound = table.c.boundary_arn
            query = select(bound, func.count().label("number")).where(table.c.account == account, bound.in_(list(arns)))
            for row in sql(tx).execute(query.group_by(bound)):
                counts[row.boundary_arn] = counts.get(row.boundary_arn, 0) + row.number
        return counts

    # Keys -------------------------------------------------------------------------------------------------------------

    def add_key(self, tx: Tx, key: AccessKey) -> None:
        sql(tx).execute(
            insert(access_keys).values(
                account=key.account,
                key_id=key.key_id,
                user_name=key.user_name,
                status=key.status.value,
                created=key.created,
                sealed_secret=key.sealed_secret,
            )
        )

    def key_by_id(self, tx: Tx, key_id: AccessKeyId) -> AccessKey | None:
        """The key of whatever account: this is how a request names its account."""
        row = sql(tx).execute(select(access_keys).where(access_keys.c.key_id == key_id)).one_or_none()
        return None if row is None else _key(row)

    def keys_of(self, tx: Tx, account: AccountId, user_name: str) -> list[AccessKey]:
        query = select(access_keys).where(access_keys.c.account == account, access_keys.c.user_name == user_name)
        return [_key(row) for row in sql(tx).execute(query.order_by(access_keys.c.created, access_keys.c.key_id))]

    def set_key_status(self, tx: Tx, account: AccountId, key_id: AccessKeyId, status: KeyStatus) -> None:
        change = update(access_keys).where(access_keys.c.account == account, access_keys.c.key_id == key_id)
        sql(tx).execute(change.values(status=status.value))

    def delete_key(self, tx: Tx, account: AccountId, key_id: AccessKeyId) -> None:
        sql(tx).execute(delete(access_keys).where(access_keys.c.account == account, access_keys.c.key_id == key_id))

    def note_key_use(self, tx: Tx, account: AccountId, key_id: AccessKeyId, use: LastUse) -> None:
        """Newer than what is noted, or nothing changes: several processes tell what they saw."""
        key = (access_keys.c.account == account, access_keys.c.key_id == key_id)
        older = access_keys.c.used_at.is_(None) | (access_keys.c.used_at < use.at)
        change = update(access_keys).where(*key, older)
        sql(tx).execute(change.values(used_at=use.at, used_service=use.service, used_region=use.region))

    def note_role_use(self, tx: Tx, account: AccountId, name: str, use: LastUse) -> None:
        """The same of a role."""
        older = roles.c.used_at.is_(None) | (roles.c.used_at < use.at)
        change = update(roles).where(*_named(roles, account, name), older)
        sql(tx).execute(change.values(used_at=use.at, used_region=use.region))

    # Sessions ---------------------------------------------------------------------------------------------------------

    def add_session(self, tx: Tx, session: Session) -> None:
        sql(tx).execute(
            insert(sessions).values(
                account=session.account,
                key_id=session.key_id,
                role_name=session.role_name,
                session_name=session.session_name,
                expires=session.expires,
                created=session.created,
                sealed_secret=session.sealed_secret,
                token_sha256=session.token_sha256,
                policy_document=session.policy_document,
                policy_arns=json.dumps(session.policy_arns) if session.policy_arns else None,
                user_name=session.user_name,
                tags=json.dumps(dict(session.tags)) if session.tags else None,
                transitive_keys=json.dumps(session.transitive_keys) if session.transitive_keys else None,
            )
        )

    def session_by_id(self, tx: Tx, key_id: AccessKeyId) -> Session | None:
        row = sql(tx).execute(select(sessions).where(sessions.c.key_id == key_id)).one_or_none()
        return None if row is None else _session(row)

    def delete_sessions_before(self, tx: Tx, account: AccountId, expired_before: Instant) -> None:
        sql(tx).execute(delete(sessions).where(sessions.c.account == account, sessions.c.expires < expired_before))


def _named(table: Table, account: AccountId, name: str) -> tuple[ColumnElement[bool], ...]:
    return (table.c.account == account, table.c.name == name)


def _of_user(account: AccountId, name: str) -> tuple[ColumnElement[bool], ...]:
    """A user's own temporary keys."""
    return (sessions.c.account == account, sessions.c.role_name == "", sessions.c.user_name == name)


def _count(tx: Tx, table: Table, account: AccountId) -> int:
    return int(sql(tx).execute(select(func.count()).select_from(table).where(table.c.account == account)).scalar_one())


def _user(row: Row[Any]) -> User:
    return User(
        account=AccountId(row.account),
        name=row.name,
        path=row.path,
        user_id=row.user_id,
        created=Instant(row.created),
        boundary_arn=row.boundary_arn,
        tags=json.loads(row.tags),
    )


def _role(row: Row[Any]) -> Role:
    return Role(
        account=AccountId(row.account),
        name=row.name,
        path=row.path,
        role_id=row.role_id,
        created=Instant(row.created),
        trust_document=row.trust_document,
        description=row.description,
        session_s_max=row.session_s_max,
        boundary_arn=row.boundary_arn,
        tags=json.loads(row.tags),
        last_use=_last_use(row.used_at, "", row.used_region),
    )


def _last_use(used_at: int | None, service: str, region: str | None) -> LastUse | None:
    return None if used_at is None else LastUse(at=Instant(used_at), service=service, region=region or "")


def _key(row: Row[Any]) -> AccessKey:
    return AccessKey(
        account=AccountId(row.account),
        key_id=AccessKeyId(row.key_id),
        user_name=row.user_name,
        status=KeyStatus(row.status),
        created=Instant(row.created),
        sealed_secret=bytes(row.sealed_secret),
        last_use=_last_use(row.used_at, row.used_service or "", row.used_region),
    )


def _session(row: Row[Any]) -> Session:
    return Session(
        account=AccountId(row.account),
        key_id=AccessKeyId(row.key_id),
        role_name=row.role_name,
        session_name=row.session_name,
        expires=Instant(row.expires),
        created=Instant(row.created),
        sealed_secret=bytes(row.sealed_secret),
        token_sha256=row.token_sha256,
        policy_document=row.policy_document,
        policy_arns=tuple(json.loads(row.policy_arns)) if row.policy_arns else (),
        user_name=row.user_name,
        tags=json.loads(row.tags) if row.tags else {},
        transitive_keys=tuple(json.loads(row.transitive_keys)) if row.transitive_keys else (),
    )


class SealedSecrets:
    """Secrets of access keys or of sessions, for whoever changes the wrapping key (``keyring.rewrapping.SealedRows``)."""

    def __init__(self, table: Table) -> None:
        """``access_keys`` or ``sessions``."""
        self._table = table

    def sealed(self, tx: Tx, *, after: tuple[str, str] | None, limit: int) -> Sequence[SealedRow]:
        columns = self._table.c
        query = select(columns.account, columns.key_id, columns.sealed_secret)
        if after is not None:
            query = query.where(tuple_(columns.account, columns.key_id) > after)
        rows = sql(tx).execute(query.order_by(columns.account, columns.key_id).limit(limit))
        return [
            SealedRow(
                place=(account, key_id),
                context=sealed_context(AccountId(account), AccessKeyId(key_id)),
                sealed=bytes(sealed),
            )
            for account, key_id, sealed in rows
        ]

    def put_sealed(self, tx: Tx, place: tuple[str, str], sealed: bytes) -> None:
        columns = self._table.c
        here = (columns.account == place[0], columns.key_id == place[1])
        sql(tx).execute(update(self._table).where(*here).values(sealed_secret=sealed))
