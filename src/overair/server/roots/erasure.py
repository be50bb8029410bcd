"""Private keys that a root no longer lists leave the files of the database, not only its tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from overair.basics.errors import Unavailable

logger = structlog.get_logger("overair.roots")


class KeyErasure:
    """Remembers, on the event loop, that keys were deleted, until the database's log is rid of them too."""

    def __init__(self, scrub: Callable[[], Awaitable[None]]) -> None:
        """``scrub``: ``SqlWork.scrub`` of the keyring's table."""
        self._scrub = scrub
        # A server that was cut may have deleted keys and not come so far.
        self._is_due = True
        self._gate = asyncio.Lock()

    def note(self) -> None:
        """A key was deleted, and that is durable."""
        self._is_due = True

    async def erase(self) -> None:
        """Rid the files of what was deleted; does nothing where nothing was. Whoever asks meanwhile waits.

        Raises:
            Unavailable: a long read keeps the log. It stays due.
        """
        async with self._gate:
            if not self._is_due:
                return
            # Before, not after: a key that is deleted meanwhile is due again.
            self._is_due = False
            try:
                await self._scrub()
            except BaseException:
                self._is_due = True
                raise

    async def erase_now_or_soon(self) -> None:
        """The same for whoever has already done what was asked of him: the worker goes on where this doesn't get through."""
        try:
            await self.erase()
        except Unavailable as error:
            logger.warning("deleted keys are still in the database's log", reason=error.message)
