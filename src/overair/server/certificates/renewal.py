"""Keeps the server's own certificate fresh while it runs: a server that is never restarted must not expire.

It comes from our own authority, or out of the user's files (``server_files.py``). Either is looked at again when somebody asks
for that; the former also before its end, the latter when the files change. A pair that can't be used changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from overair.basics.clock import Clock, Instant, as_datetime
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.certificates.authorities import SERVER_CERTIFICATE_RENEWED_BEFORE_MS, ServerIdentity
from overair.server.certificates.server_files import ServerFiles

NEWS: Final = "server-certificate"
"""Told to the other processes of a server: look again at what is to be shown."""
FILES_EXPIRE_SOON_MS: Final = 30 * 86_400_000

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
        files: ServerFiles | None = None,
    ) -> None:
        """``show`` is called on the event loop with what peers are to see from now on. ``files``: the user's own certificate,
        in place of ours."""
        self._work = work
        self._authorities = authorities
        self._account = account
        self._hosts = tuple(hosts)
        self._clock = clock
        self._show = show
        self._files = files
        self._shown: ServerIdentity | None = None
        self._asked = False

    async def first(self) -> ServerIdentity:
        """What is to be shown at the start.

        Raises:
            InvalidRequest: the user's files can't be used, or a host is neither a name nor an address. The message says which.
        """
        # Made in any case, so that a server that goes back to its own certificate has the authority that its devices know.
        ours = await self._ours()
        if self._files is None:
            return ours
        identity = self._files.read(self._hosts, now=self._clock.now())
        self._warn_of_the_end(identity)
        return identity

    def watch(self, shown: ServerIdentity) -> None:
        """This is what the listeners show."""
        self._shown = shown

    def file_end(self) -> Instant | None:
        """When the user's own certificate ends; None where ours is shown."""
        return None if self._files is None or self._shown is None else self._shown.not_after

    def ask(self) -> None:
        """Look again, whether anything seems to have changed or not. On the event loop; whoever asks wakes the worker."""
        self._asked = True

    async def check(self) -> ServerIdentity:
        """What would be shown if it were looked at now.

        Raises:
            InvalidRequest: the user's files can't be used.
        """
        if self._files is None:
            return await self._ours()
        return self._files.read(self._hosts, now=self._clock.now())

    async def run_once(self) -> bool:
        """Take what is fresh: our own certificate (made here, or already by another node) once the shown one nears its end or
        its authority was replaced, the user's once its files have changed."""
        shown = self._shown
        if shown is None or not self._has_reason(shown):
            return False
        self._asked = False
        try:
            fresh = await self.check()
        except InvalidRequest as broken:
            logger.warning("the new server certificate can't be used; the one that is shown stays", why=broken.message)
            return False
        if (fresh.certificate_pem, fresh.authority_pem) == (shown.certificate_pem, shown.authority_pem):
            return False
        self._show(fresh)
        self._shown = fresh
        logger.info("server certificate renewed", not_after=fresh.not_after)
        self._warn_of_the_end(fresh)
        return True

    def _has_reason(self, shown: ServerIdentity) -> bool:
        # The files are looked at in any case: what was seen is remembered by that.
        files_changed = self._files is not None and self._files.changed()
        if self._asked or files_changed:
            return True
        return self._files is None and shown.not_after - self._clock.now() < SERVER_CERTIFICATE_RENEWED_BEFORE_MS

    async def _ours(self) -> ServerIdentity:
        return await self._work.run(lambda tx: self._authorities.server_identity(tx, self._account, self._hosts))

    def _warn_of_the_end(self, identity: ServerIdentity) -> None:
        if self._files is not None and identity.not_after - self._clock.now() < FILES_EXPIRE_SOON_MS:
            until = as_datetime(identity.not_after).isoformat(timespec="seconds")
            logger.warning("the server certificate of your files ends soon; put a new one in their place", not_after=until)
