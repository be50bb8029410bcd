"""When what lets devices in ends: authorities of operators' own, their revocation lists, shared credentials
(``keyring.calendar``)."""

from __future__ import annotations

from collections.abc import Iterator

from overair.basics.clock import Clock
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.keyring.endings import Ending, EndingKind
from overair.server.provisioning.model import CredentialState
from overair.server.provisioning.ports import Store

ELSEWHERE = "offline:your%20own%20PKI"
PAGE_SIZE = 250
CREDENTIALS = "provisioning-credentials"


class ProvisioningEndings:
    """``keyring.calendar.Endings`` of this room."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def endings(self, tx: Tx, account: AccountId) -> Iterator[Ending]:
        """See ``Endings``."""
        for authority in self._store.authorities(tx, account):
            yield Ending(
                kind=EndingKind.AUTHORITY,
                name=f"fleet/{authority.id}",
                what=f"fleet authority {authority.name or authority.subject}",
                expires=authority.not_after,
                holder=ELSEWHERE,
                todo="Register its successor (overair fleet-ca add) before its devices' certificates end with it.",
            )
        for standing in self._store.lists(tx, account, None):
            yield Ending(
                kind=EndingKind.REVOCATION_LIST,
                name=f"crl/{standing.issuer}",
                what=f"revocation list {standing.number} of {standing.issuer}",
                expires=standing.next_update,
                holder=ELSEWHERE,
                todo="Hand in the next list: overair fleet-ca crl.",
            )
        yield from self._credentials(tx, account)

    def _credentials(self, tx: Tx, account: AccountId) -> Iterator[Ending]:
        now, after = self._clock.now(), None
        ends = []
        while page := self._store.page_credentials(tx, account, after=after, limit=PAGE_SIZE):
            ends += [each.expires_at for each in page if each.state(now) is CredentialState.USABLE]
            after = (page[-1].created_at, page[-1].id)
        if ends:
            yield Ending(
                kind=EndingKind.DEVICE_CERTIFICATES,
                name=CREDENTIALS,
                what=f"shared provisioning credentials: {len(ends)} are usable",
                expires=min(ends),
                holder="whoever was given them",
                todo="Make another one for whoever goes on: overair credentials device.",
                is_summary=True,
            )
