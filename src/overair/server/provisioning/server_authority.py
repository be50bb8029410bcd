"""The server authority follows another without a device lost: nothing goes that somebody still needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from overair.basics.arn import Place
from overair.basics.errors import Conflict
from overair.basics.ids import CertificateId, ThingName
from overair.basics.work import News, Tx
from overair.server.certificates import x509
from overair.server.certificates.model import OwnCertificate
from overair.server.certificates.renewal import NEWS
from overair.server.certificates.service import AuthoritiesService, CertificatesService, ServerAuthorities
from overair.server.provisioning.enrolment import Enrolment

PAGE: Final = 500
COUNTED_MAX: Final = 10_000
NAMED_MAX: Final = 20
NAMED_IN_REFUSAL_MAX: Final = 5


class RotationStep(StrEnum):
    """What an operator has done next."""

    BEGIN = "begin"
    SWITCH = "switch"
    RETIRE = "retire"
    BACK_OUT = "back-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """Devices that aren't known to have stored an authority."""

    count: int
    is_more: bool
    """Whether nobody counted further."""
    elsewhere: int
    """How many of them are other accounts' devices, whose names are nobody else's affair."""
    named: tuple[ThingName, ...]
    """Of the server's own account."""


class ServerAuthorityRotation:
    """Steps of the rotation, and who isn't ready for the next one. Its account is the server's own."""

    def __init__(
        self,
        *,
        authorities: AuthoritiesService,
        certificates: CertificatesService,
        enrolment: Enrolment,
        home: Place,
        look_again: Callable[[], None],
    ) -> None:
        """``look_again``: have this process look at what it is to show."""
        self._authorities = authorities
        self._certificates = certificates
        self._enrolment = enrolment
        self._home = home
        self._look_again = look_again

    def standing(self, tx: Tx) -> ServerAuthorities:
        """Who vouches for the server."""
        return self._authorities.server_authorities(tx, self._home.account)

    def lacking(self, tx: Tx) -> Lacking:
        """Devices of any account that have a certificate which opens something, and aren't known to trust the newest authority:
        there are some only while one follows another, since a device is given the present one as it comes in."""
        standing = self.standing(tx)
        if standing.next is None and standing.former is None:
            return Lacking(count=0, is_more=False, elsewhere=0, named=())
        newest = fingerprint_of(standing.newest)
        count, elsewhere, named, after = 0, 0, list[ThingName](), None
        while page := self._certificates.page_without_trust(tx, newest, after=after, limit=PAGE):
            for account, identity in page:
                things = self._enrolment.things_of(tx, Place(self._home.region, account), identity)
                if not things:
                    continue  # a claim, or one that was never given to anybody
                if count == COUNTED_MAX:
                    return Lacking(count=count, is_more=True, elsewhere=elsewhere, named=tuple(named))
                count += 1
                if account != self._home.account:
                    elsewhere += 1
                elif len(named) < NAMED_MAX:
                    named.append(things[0])
            after = page[-1][1]
        return Lacking(count=count, is_more=False, elsewhere=elsewhere, named=tuple(named))

    def take(self, tx: Tx, step: RotationStep, *, even_so: bool) -> None:
        """One step. What is shown changes in every process once this unit is durable.

        Raises:
            Conflict: it isn't the next one (subject ``server-authority``), or devices would be lost, ``even_so`` unless that is
                said (subject ``devices-left-behind``).
        """
        account = self._home.account
        if step is RotationStep.BEGIN:
            self._authorities.begin_rotation(tx, account)
        elif step is RotationStep.SWITCH:
            self._require_nobody_left_behind(tx, even_so=even_so)
            self._authorities.switch_authority(tx, account)
        elif step is RotationStep.RETIRE:
            self._require_nobody_left_behind(tx, even_so=even_so)
            self._authorities.retire_former(tx, account)
        else:
            self._authorities.back_out(tx, account)
        self._show(tx)

    def renew(self, tx: Tx) -> None:
        """A new server certificate by the present authority, or the user's files read again."""
        self._authorities.renew_server_certificate(tx, self._home.account)
        self._show(tx)

    def _show(self, tx: Tx) -> None:
        tx.after_commit(self._look_again)
        tx.tell_nodes(News(NEWS, ()))

    def _require_nobody_left_behind(self, tx: Tx, *, even_so: bool) -> None:
        lacking = self.lacking(tx)
        if even_so or not lacking.count:
            return
        names: list[str] = [*lacking.named[:NAMED_IN_REFUSAL_MAX]]
        if lacking.elsewhere:
            names.append(f"{lacking.elsewhere} of other accounts")
        if len(lacking.named) > NAMED_IN_REFUSAL_MAX:
            names.append("…")
        raise Conflict(
            f"{lacking.count}{' or more' if lacking.is_more else ''} devices aren't known to trust the new server "
            f"authority: {', '.join(names)}. They would refuse this server. Wait until they have fetched it, hand it "
            "to them in another way, or say that it is to be done even so.",
            subject="devices-left-behind",
        )


def fingerprint_of(authority: OwnCertificate) -> CertificateId:
    """How devices' knowledge of it is written down."""
    return x509.fingerprint(x509.certificate_from_pem(authority.pem.encode("ascii")))
