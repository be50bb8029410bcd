"""Who is kept out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, String, Table, Text, and_, bindparam, delete, insert, or_, select, tuple_

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId
from overair.basics.work import Tx
from overair.server.devices.blocks import Block, BlockKind
from overair.server.devices.store.things import thing_principals
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, sql

device_blocks: Final = Table(
    "device_blocks",
    metadata,
    account_column(),
    Column("kind", String(16), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("reason", Text, nullable=False),
    instant_column("blocked_at"),
    Column("blocked_by", Text, nullable=False),
)

_OF_CERTIFICATE: Final = HotStatement(
    select(*device_blocks.c)
    .where(
        device_blocks.c.account == bindparam("b_account"),
        or_(
            and_(device_blocks.c.kind == BlockKind.CERTIFICATE.value, device_blocks.c.name == bindparam("b_certificate")),
            and_(device_blocks.c.kind == BlockKind.ORIGIN.value, device_blocks.c.name == bindparam("b_origin")),
            and_(
                device_blocks.c.kind == BlockKind.THING.value,
                device_blocks.c.name.in_(
                    select(thing_principals.c.thing).where(
                        thing_principals.c.account == bindparam("b_account"),
                        thing_principals.c.certificate == bindparam("b_certificate"),
                    )
                ),
            ),
        ),
    )
    .limit(1)
)


class SqlBlockStore:
    """Blocks in SQL."""

    def find(self, tx: Tx, account: AccountId, kind: BlockKind, name: str) -> Block | None:
        row = sql(tx).execute(select(*device_blocks.c).where(*_is(account, kind, name))).one_or_none()
        return None if row is None else _block(row)

    def put(self, tx: Tx, block: Block) -> None:
        self.delete(tx, block.account, block.kind, block.name)
        sql(tx).execute(
            insert(device_blocks).values(
                account=block.account,
                kind=block.kind.value,
                name=block.name,
                reason=block.reason,
                blocked_at=block.blocked_at,
                blocked_by=block.blocked_by,
            )
        )

    def delete(self, tx: Tx, account: AccountId, kind: BlockKind, name: str) -> bool:
        return sql(tx).execute(delete(device_blocks).where(*_is(account, kind, name))).rowcount > 0

    def page(self, tx: Tx, account: AccountId, *, after: tuple[str, str] | None, limit: int) -> Sequence[Block]:
        wanted = select(*device_blocks.c).where(device_blocks.c.account == account)
        if after is not None:
            wanted = wanted.where(tuple_(device_blocks.c.kind, device_blocks.c.name) > after)
        rows = sql(tx).execute(wanted.order_by(device_blocks.c.kind, device_blocks.c.name).limit(limit))
        return [_block(row) for row in rows]


def block_of_certificate(tx: Tx, account: AccountId, certificate: CertificateId, origin: str) -> Block | None:
    """What keeps a certificate out: a block of its own, of a thing that it is attached to, or of where it came from."""
    row = _OF_CERTIFICATE.first(tx, b_account=account, b_certificate=certificate, b_origin=origin)
    return None if row is None else _block(row)


def _is(account: AccountId, kind: BlockKind, name: str) -> tuple[Any, ...]:
    table = device_blocks
    return table.c.account == account, table.c.kind == kind.value, table.c.name == name


def _block(row: Sequence[Any]) -> Block:
    account, kind, name, reason, blocked_at, blocked_by = row
    return Block(
        account=AccountId(account),
        kind=BlockKind(kind),
        name=name,
        reason=reason,
        blocked_at=Instant(blocked_at),
        blocked_by=blocked_by,
    )
