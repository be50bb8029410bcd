"""When certificates end: our own, imported ones, and devices' as one line (``keyring.calendar``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.certificates.acm import PAGE_SIZE, AcmQuery, AcmStore
from overair.server.certificates.authorities import SERVER_CERTIFICATE_RENEWED_BEFORE_MS
from overair.server.certificates.model import AuthorityPurpose, OwnCertificate
from overair.server.keyring.endings import ALARM_DAYS, DAY_MS, Ending, EndingKind

DEVICES: Final = "device-certificates"
SHOWN: Final = "server-files"
_OWN: Final = {
    AuthorityPurpose.DEVICE_AUTHORITY: ("issues devices' certificates", "Rotate it: overair keys rotate device-authority."),
    AuthorityPurpose.FLEET_AUTHORITY: (
        "issues devices' certificates to shared credentials",
        "Rotate it: overair keys rotate fleet-authority.",
    ),
    AuthorityPurpose.CREDENTIAL_AUTHORITY: (
        "issues shared credentials",
        "Rotate it: overair keys rotate credential-authority.",
    ),
    AuthorityPurpose.SERVER_AUTHORITY: (
        "vouches for what this server shows",
        "Begin its rotation in time for every device to learn of the next one: overair server-ca begin.",
    ),
    AuthorityPurpose.NEXT_SERVER_AUTHORITY: (
        "will vouch for what this server shows",
        "Go on with the rotation: overair server-ca switch.",
    ),
    AuthorityPurpose.FORMER_SERVER_AUTHORITY: ("vouched for what this server showed", "Retire it: overair server-ca retire."),
    AuthorityPurpose.SERVER: ("is shown by this server", "The server issues another by itself: see why it hasn't."),
}


class EndingStore(AcmStore, Protocol):
    """The rows of certificates, as far as they end."""

    def all_own(self, tx: Tx, account: AccountId) -> Sequence[OwnCertificate]: ...

    def device_ends(self, tx: Tx, account: AccountId, *, now: Instant, until: Instant) -> DeviceEnds: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEnds:
    """Of active device certificates."""

    first: Instant | None
    """The next one's end from now on; None where there is none."""
    soon: int
    """How many end until the moment that was asked for."""
    ended: int


class CertificateEndings:
    """``keyring.calendar.Endings`` of this room."""

    def __init__(
        self, store: EndingStore, *, clock: Clock, home: AccountId, file_end: Callable[[], Instant | None] = lambda: None
    ) -> None:
        """``file_end``: when the server certificate out of the user's own files ends, which is shown for all accounts and told
        to the server's first one; None where our own is shown."""
        self._store = store
        self._clock = clock
        self._home = home
        self._file_end = file_end

    def endings(self, tx: Tx, account: AccountId) -> Iterator[Ending]:
        """See ``Endings``."""
        shown = self._file_end() if account == self._home else None
        for own in self._store.all_own(tx, account):
            what, todo = _OWN[own.purpose]
            is_leaf = own.purpose is AuthorityPurpose.SERVER
            if is_leaf and shown is not None:
                continue  # nobody sees it
            yield Ending(
                kind=EndingKind.SERVER_CERTIFICATE if is_leaf else EndingKind.AUTHORITY,
                name=own.purpose.value,
                what=f"{own.purpose.value}: {what}",
                expires=own.not_after,
                key_id=own.key_id,
                todo=todo,
                renewed_before_ms=SERVER_CERTIFICATE_RENEWED_BEFORE_MS if is_leaf else None,
            )
        if shown is not None:
            yield Ending(
                kind=EndingKind.SERVER_CERTIFICATE,
                name=SHOWN,
                what="the server certificate out of your own files",
                expires=shown,
                holder="file:",
                todo="Put a renewed one into the files; it is read without a restart.",
            )
        yield from self._signers(tx, account)
        yield from self._devices(tx, account)

    def _signers(self, tx: Tx, account: AccountId) -> Iterator[Ending]:
        after = None
        now = self._clock.now()
        while page := self._store.page_acm(tx, account, AcmQuery(), now=now, after=after, limit=PAGE_SIZE):
            for each in page:
                yield Ending(
                    kind=EndingKind.SIGNER_CERTIFICATE,
                    name=each.arn,
                    what=f"signer certificate {each.domain_name or each.subject} ({each.id})",
                    expires=each.not_after,
                    key_id=each.key_id,
                    todo="Ship its successor to devices ahead, then import it under the same ARN (ImportCertificate).",
                )
            after = (page[-1].created_at, page[-1].id)

    def _devices(self, tx: Tx, account: AccountId) -> Iterator[Ending]:
        now = self._clock.now()
        found = self._store.device_ends(tx, account, now=now, until=Instant(now + ALARM_DAYS[0] * DAY_MS))
        if found.first is not None:
            ended = f"; {found.ended} active ones have ended" if found.ended else ""
            yield Ending(
                kind=EndingKind.DEVICE_CERTIFICATES,
                name=DEVICES,
                what=f"device certificates: {found.soon} end within {ALARM_DAYS[0]} days{ended}",
                expires=found.first,
                holder="devices",
                todo="Have devices renew theirs, or give them new ones.",
                is_summary=True,
            )
