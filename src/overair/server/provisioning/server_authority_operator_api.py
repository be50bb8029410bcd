"""What operators of the server's own account ask about what it shows, and whom its devices trust."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from overair.basics.errors import AccessDenied
from overair.basics.ids import AccountId
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.certificates import x509
from overair.server.certificates.model import OwnCertificate
from overair.server.certificates.service import ServerIdentity
from overair.server.provisioning.server_authority import RotationStep, ServerAuthorityRotation, fingerprint_of

_ROLES: Final = ("next", "current", "former")


class ServerAuthorityOperations:
    """The operations of the server's certificate and its authority."""

    def __init__(
        self,
        *,
        work: Work,
        rotation: ServerAuthorityRotation,
        home: AccountId,
        check: Callable[[], Awaitable[ServerIdentity]],
        shows_files: bool,
    ) -> None:
        """``check``: what would be shown now; raises InvalidRequest where it can't be. ``shows_files``: the user's own."""
        self._work = work
        self._rotation = rotation
        self._home = home
        self._check = check
        self._shows_files = shows_files

    @operation("overair", "DescribeServerCertificate")
    async def describe(self, caller: Caller, request: Request) -> Members:
        self._require_home(caller)
        return await self._told()

    @operation("overair", "RotateServerAuthority")
    async def rotate(self, caller: Caller, request: Request) -> Members:
        self._require_home(caller)
        step, even_so = RotationStep(request["step"]), request.get("evenSo", False)
        await self._work.run(lambda tx: self._rotation.take(tx, step, even_so=even_so))
        return await self._told()

    @operation("overair", "RenewServerCertificate")
    async def renew(self, caller: Caller, request: Request) -> Members:
        self._require_home(caller)
        if self._shows_files:
            await self._check()  # refused by name here, where somebody reads it; the log says it too
        await self._work.run(self._rotation.renew)
        return await self._told()

    async def _told(self) -> Members:
        standing, lacking = await self._work.read(lambda tx: (self._rotation.standing(tx), self._rotation.lacking(tx)))
        shown = await self._check()
        leaf = x509.anchors_from_pem(shown.certificate_pem)[0]
        return {
            "certificateId": x509.fingerprint(leaf),
            "notAfter": shown.not_after,
            "isFromFiles": self._shows_files,
            "phase": standing.phase.value,
            "authorities": [
                _authority(role, each)
                for role, each in zip(_ROLES, (standing.next, standing.current, standing.former), strict=True)
                if each is not None
            ],
            "devicesLacking": lacking.count,
            "areMoreLacking": lacking.is_more,
            "devicesLackingElsewhere": lacking.elsewhere,
            "lackingNamed": list(lacking.named),
        }

    def _require_home(self, caller: Caller) -> None:
        if caller.account != self._home:
            raise AccessDenied(
                "What this server shows is the affair of the account that its first start made.", subject="other-account"
            )


def _authority(role: str, authority: OwnCertificate) -> Members:
    return {
        "role": role,
        "authorityId": fingerprint_of(authority),
        "notAfter": authority.not_after,
        "createdAt": authority.created_at,
        "certificatePem": authority.pem,
    }
