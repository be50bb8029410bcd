"""What a unit of work announces, on its way into the outbox."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import bindparam, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Notice
from overair.server.storage.schema import outbox
from overair.server.storage.statements import HotStatement, listed
from overair.server.storage.transaction import SqlTx

_insert: Final = HotStatement(
    insert(outbox), columns=("account", "topic", "payload", "qos", "created", "properties", "expires")
)
_TOLD_ALIKE: Final = ("account", "payload", "qos", "created")
_insert_alike: Final = {
    dialect: HotStatement(
        insert(outbox).from_select(
            ["topic", *_TOLD_ALIKE],
            select(topics.c.value, *(bindparam(f"b_{name}", type_=outbox.c[name].type) for name in _TOLD_ALIKE)),
        )
    )
    for dialect, topics in listed("b_topics").items()
}


def notice_of(account: str, topic: str, payload: bytes, qos: int, properties: bytes | None, expires: int | None) -> Notice:
    """A row's notice."""
    return Notice(
        account=AccountId(account),
        topic=topic,
        payload=bytes(payload),
        qos=qos,
        properties=bytes(properties) if properties else b"",
        expires=None if expires is None else Instant(expires),
    )


def leave_notices(tx: SqlTx, *, now: Instant) -> None:
    """Write a row for each notice of a unit, in their order. What is said on many topics is one statement."""
    one_by_one: list[Notice] = []
    for notice in tx.notices:
        if isinstance(notice, Notice):
            one_by_one.append(notice)
            continue
        _leave_each(tx, one_by_one, now=now)
        one_by_one = []
        _insert_alike[tx.connection.dialect.name].run(
            tx,
            b_topics=msgspec.json.encode(notice.topics).decode(),
            b_account=notice.account,
            b_payload=notice.payload,
            b_qos=notice.qos,
            b_created=now,
        )
    _leave_each(tx, one_by_one, now=now)


def _leave_each(tx: SqlTx, notices: list[Notice], *, now: Instant) -> None:
    if notices:
        _insert.run_many(
            tx,
            [
                {
                    "account": notice.account,
                    "topic": notice.topic,
                    "payload": notice.payload,
                    "qos": notice.qos,
                    "created": now,
                    "properties": notice.properties or None,
                    "expires": notice.expires,
                }
                for notice in notices
            ],
        )
