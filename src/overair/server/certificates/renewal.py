"""Keeps the server's own certificate fresh while it runs: a server that is never restarted must not expire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from overair.basics.clock import Clock
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.certificates.authorities import SERVER_CERTIFICATE_RENEWED_BEFORE_MS, ServerIdentity

logger = structlog.get_logger("overair.certificates")


class ServerIdentities(Protocol):
    """``authorities.AuthoritiesService``."""

    def server_identity(self, tx: Tx, account: AccountId, hosts: Sequence[str]) -> ServerIdentity: ...


class ServerCertificateRenewal:
    """A worker (``workers.loop.Worker``). Idle until it is told what is shown now."""

    name = "server-certificate"

    def __init__(
        self,
        *,
        work: Work,
        authorities: ServerIdentities,
        account: AccountId,
        hosts: Sequence[str],
        clock: Clock,
        show: Callable[[ServerIdentity], None],
    ) -> None:
        """``show`` is called on the event loop with what peers are to see from now on."""
        self._work = work
        self._authorities = authorities
        self._account = account
        self._hosts = tuple(hosts)
        self._clock = clock
        self._show = show
        self._shown: ServerIdentity | None = None

    def watch(self, shown: ServerIdentity) -> None:
        """This is what the listeners show."""
        self._shown = shown

    async def run_once(self) -> bool:
        """Take the fresh certificate (made here, or already by another node) once the shown one nears its end."""
        shown = self._shown
        if shown is None or shown.not_after - self._clock.now() >= SERVER_CERTIFICATE_RENEWED_BEFORE_MS:
            return False
        fresh = await self._work.run(lambda tx: self._authorities.server_identity(tx, self._account, self._hosts))
        self._show(fresh)
        self._shown = fresh
        logger.info("server certificate renewed", not_after=fresh.not_after)
        return True
