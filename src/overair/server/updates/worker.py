"""Drives sagas: one committed step after another until an update is whole, has failed, or waits for a signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from overair.basics.errors import OverairError
from overair.basics.ids import AccountId, OtaUpdateId
from overair.basics.work import Work
from overair.server.updates.saga import FAILURE_CODES, Saga
from overair.server.updates.service import UpdatesService

logger = structlog.get_logger("overair.updates")

UPDATES_PER_ROUND: Final = 64


class UpdatesWorker:
    """Goes on with every unfinished update, oldest first. A ``workers.Worker``.

    ``after_step`` is told each step's name right after its commit; production does nothing there.
    """

    name = "updates"

    def __init__(
        self, *, work: Work, updates: UpdatesService, saga: Saga, after_step: Callable[[str], None] = lambda step: None
    ) -> None:
        self._work = work
        self._updates = updates
        self._saga = saga
        self._after_step = after_step

    async def run_once(self) -> bool:
        """Take each unfinished update as far as it goes now. True when at least one went on.

        A fault of our own (a disk that doesn't answer) is raised once the others had their turn, and the update waits.
        """
        unfinished = await self._work.read(lambda tx: self._updates.unfinished(tx, limit=UPDATES_PER_ROUND))
        went_on = False
        faults: list[Exception] = []
        for account, update in unfinished:
            try:
                went_on = await self._go_on(account, update) or went_on
            except Exception as fault:
                faults.append(fault)
        if faults:
            raise ExceptionGroup("Some updates could not go on now.", faults)
        return went_on

    async def _go_on(self, account: AccountId, update: OtaUpdateId) -> bool:
        went_on = False
        while True:
            try:
                step = await self._work.run(lambda tx: self._saga.advance(tx, account, update))
            except OverairError as error:
                if type(error) not in FAILURE_CODES:
                    raise
                await self._fail(account, update, error)
                return True
            if step is None:
                return went_on
            went_on = True
            logger.info("update went on", account=account, update=update, step=step.value)
            self._after_step(step.value)

    async def _fail(self, account: AccountId, update: OtaUpdateId, error: OverairError) -> None:
        logger.warning("update failed", account=account, update=update, reason=error.message)
        await self._work.run(lambda tx: self._saga.fail(tx, account, update, error))
        self._after_step(FAILED)


FAILED: Final = "update.fail"
"""The name of the commit that ends an update as CREATE_FAILED."""
