"""A process that commits numbered units and says each number once it was acknowledged, until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sqlalchemy import Column, Integer, Table, insert

from overair.basics.clock import WallClock
from overair.basics.ids import AccountId
from overair.basics.work import Notice
from overair.server.storage.schema import account_column, metadata
from overair.server.storage.work import HotStatement, open_sqlite

numbers = Table("test_numbers", metadata, account_column(), Column("number", Integer, primary_key=True))
add_number = HotStatement(insert(numbers))
ACCOUNT = AccountId("123456789012")
CALLERS = 8


async def main(path: Path) -> None:
    work = open_sqlite(path, clock=WallClock())
    metadata.create_all(work.engine)

    async def caller(first: int) -> None:
        number = first
        while True:

            def unit(tx, number=number):  # type: ignore[no-untyped-def]
                add_number.run(tx, account=ACCOUNT, number=number)
                tx.publish(Notice(account=ACCOUNT, topic=str(number), payload=b""))

            await work.run(unit)
            print(number, flush=True)
            number += CALLERS

    await asyncio.gather(*(caller(first) for first in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
