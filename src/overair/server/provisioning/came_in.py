"""Which devices came in by what: a credential, a template, a CA certificate, an operator's word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.certificates.model import CREDENTIAL_ORIGIN, FLEET_ORIGIN
from overair.server.provisioning.model import ProvisionedDevice
from overair.server.provisioning.ports import AuthorityStore, DeviceStore

_CERTIFICATE: Final = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameInBy:
    """What is asked for; at most one of the four. None of them: every device that came in."""

    origin: str | None = None
    """As it stands in the records: ``credential/ID``, ``fleet-authority/ID``, ``template/NAME``, ``registration-task/ID``, …"""
    template: str | None = None
    """A provisioning template's name, whatever led to it: a claim or a CA certificate."""
    authority: str | None = None
    """A fleet authority's id, or a CA certificate's."""
    credential: str | None = None
    """A shared credential's id, or the certificate id of a claim."""

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.origin, self.template, self.authority, self.credential)) > 1:
            raise InvalidRequest("Ask for an origin, a template, an authority or a credential: one of them.", subject="origin")


class ProvisionedDevices:
    """The list of devices that came in, of one account at a time."""

    def __init__(self, *, devices: DeviceStore, authorities: AuthorityStore) -> None:
        self._devices = devices
        self._authorities = authorities

    def page(
        self, tx: Tx, account: AccountId, asked: CameInBy, *, after: str | None, limit: int
    ) -> Sequence[ProvisionedDevice]:
        """By thing."""
        origin, claim = asked.origin, None
        if asked.authority is not None:
            origin = FLEET_ORIGIN + self._authority(tx, account, asked.authority)
        if asked.credential is not None:
            if _CERTIFICATE.fullmatch(asked.credential):
                claim = asked.credential
            else:
                origin = CREDENTIAL_ORIGIN + asked.credential
        return self._devices.page_came_in(
            tx, account, origin=origin, template=asked.template, claim=claim, after=after, limit=limit
        )

    def _authority(self, tx: Tx, account: AccountId, identity: str) -> str:
        """Of a CA certificate the authority that it is; a withdrawn one's devices are still found under the authority's id."""
        known = self._authorities.authorities(tx, account)
        return next((str(each.id) for each in known if each.fingerprint == identity), identity)
