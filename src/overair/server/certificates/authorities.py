"""Our own authorities: who issues devices' certificates, and what this server shows to whoever connects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, NotFound
from overair.basics.ids import AccountId, IdSource, KeyId
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.keys import AUTHORITY_KEY_KIND, HeldKey
from overair.server.certificates.model import AuthorityPurpose, OwnCertificate
from overair.server.keyring.model import PreparedKey
from overair.server.keyring.service import Keyring

SERVER_CERTIFICATE_LIFE_MS: Final = 397 * 86_400_000
"""What browsers and phones accept at most; renewed long before."""
SERVER_CERTIFICATE_RENEWED_BEFORE_MS: Final = 60 * 86_400_000
_PROVISIONING_NAMES: Final = {
    AuthorityPurpose.FLEET_AUTHORITY: "Overair fleet authority",
    AuthorityPurpose.CREDENTIAL_AUTHORITY: "Overair provisioning credentials",
}


class ShownInstead(Protocol):
    """The user's own server certificate (``server_files.ServerFiles``)."""

    @property
    def anchors_pem(self) -> str:
        """Whom clients are to trust for it."""
        ...


class OwnCertificateStore(Protocol):
    """The rows of our own certificates."""

    def find_own(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> OwnCertificate | None: ...

    def put_own(self, tx: Tx, certificate: OwnCertificate) -> None:
        """Insert, or replace the one with the same purpose."""
        ...

    def delete_own(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """What the listeners show: the leaf, and the authority that peers trust."""

    certificate_pem: str
    """The leaf, then what is sent with it."""
    authority_pem: str
    """Goes into the file that devices and operators trust: one authority, or two while one follows the other. It stays the same
    when the leaf is issued again."""
    key_pem: Redacted[bytes]
    """PKCS#8, for the TLS engine alone."""
    not_after: Instant


class RotationPhase(StrEnum):
    """How far one server authority is on its way to following another."""

    STEADY = "steady"
    AHEAD = "ahead"
    """The next one is made and handed out; what is shown is still the present one's."""
    SWITCHED = "switched"
    """What is shown is the new one's; the former is still trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAuthorities:
    """Who vouches for what this server shows."""

    current: OwnCertificate
    next: OwnCertificate | None
    former: OwnCertificate | None

    @property
    def trusted(self) -> tuple[OwnCertificate, ...]:
        """Whom clients are to trust: the newest first, so that clients that keep one only keep that."""
        return tuple(each for each in (self.next, self.current, self.former) if each is not None)

    @property
    def newest(self) -> OwnCertificate:
        """The one that devices must know before the other goes."""
        return self.next or self.current

    @property
    def phase(self) -> RotationPhase:
        if self.next is not None:
            return RotationPhase.AHEAD
        return RotationPhase.STEADY if self.former is None else RotationPhase.SWITCHED


_NEXT_STEP: Final = {
    RotationPhase.STEADY: "the only step from there is to begin",
    RotationPhase.AHEAD: "the steps from there are to switch, or to back out",
    RotationPhase.SWITCHED: "the steps from there are to retire the former authority, or to back out",
}


class AuthoritiesService:
    """Makes each authority when it is first asked for, and re-issues the server's certificate when its hosts change."""

    def __init__(self, *, store: OwnCertificateStore, keys: Keyring, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._ids = ids
        self._shown_instead: ShownInstead | None = None
        self._device_issuers: dict[KeyId, x509.Issuer] = {}
        self._issuer_of: dict[AccountId, KeyId] = {}

    def shown_instead(self, files: ShownInstead) -> None:
        """Register, at composition, that the user's own certificate is shown in place of ours."""
        self._shown_instead = files

    def device_authority_pem(self, tx: Tx, account: AccountId) -> str:
        """The certificate of the account's device authority, which is made if it isn't there."""
        return self._authority(tx, account, AuthorityPurpose.DEVICE_AUTHORITY, f"Overair device authority {account}").pem

    def find_device_authority_pem(self, tx: Tx, account: AccountId) -> str | None:
        """The same where it is there already."""
        found = self._store.find_own(tx, account, AuthorityPurpose.DEVICE_AUTHORITY)
        return None if found is None else found.pem

    def device_issuer(self, tx: Tx, account: AccountId) -> x509.Issuer:
        """The account's device authority, ready to sign."""
        authority = self._authority(tx, account, AuthorityPurpose.DEVICE_AUTHORITY, f"Overair device authority {account}")
        ready = self._device_issuers.get(authority.key_id)
        if ready is None:
            ready = self._issuer(tx, authority)
            # Kept once this unit is durable only: the authority may have been made in it. One that was rotated is of another
            # key, in whichever process that was done.
            issuer = ready
            tx.after_commit(lambda: self._keep_issuer(account, authority.key_id, issuer))
        return ready

    def provisioning_issuer(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> x509.Issuer:
        """The account's fleet authority or its credential authority, ready to sign; made if it isn't there. Asked of the
        records each time: once destroyed it signs nothing more."""
        return self._issuer(tx, self._provisioning_authority(tx, account, purpose))

    def find_provisioning_authority(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> OwnCertificate | None:
        """The same as a record, None where it was never made or was destroyed."""
        assert purpose in _PROVISIONING_NAMES
        return self._store.find_own(tx, account, purpose)

    def destroy_provisioning_authority(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> OwnCertificate | None:
        """Forget the authority and its key, leaving nothing of it in the records; what it was, or None."""
        standing = self.find_provisioning_authority(tx, account, purpose)
        if standing is not None:
            self._store.delete_own(tx, account, purpose)
            self._keys.delete(tx, account, standing.key_id)
        return standing

    def rotate_device_authority(
        self, tx: Tx, account: AccountId, purpose: AuthorityPurpose, prepared: PreparedKey
    ) -> OwnCertificate:
        """Another key and certificate for an authority over devices or credentials; the former key is forgotten. What it issued
        is known by fingerprints, and needs it no more.

        Raises:
            NotFound: with subject ``key-name``: there is none yet, or shared provisioning is off. The device authority is made.
        """
        standing = self._store.find_own(tx, account, purpose)
        if purpose is AuthorityPurpose.DEVICE_AUTHORITY:
            name = f"Overair device authority {account}"
        else:
            name = f"{_PROVISIONING_NAMES[purpose]} {account}"
            if standing is None:
                raise NotFound(
                    f"There is no {purpose.value}: it is made when shared provisioning first needs it, and is gone while that "
                    "is off.",
                    subject="key-name",
                )
        if standing is not None:
            self._forget(tx, standing)
            # A name of its own: not everybody tells two authorities of one name apart.
            name = f"{name} {self._ids.secret_bytes(4).hex()}"
        return self._make(tx, account, purpose, name, self._keys.keep(tx, account, prepared, purpose.value))

    def server_authority_pem(self, tx: Tx, account: AccountId) -> str:
        """Who vouches for what this server shows, and for what it will show; ``account`` is the server's own."""
        if self._shown_instead is not None:
            return self._shown_instead.anchors_pem
        return "".join(each.pem for each in self.server_authorities(tx, account).trusted)

    def server_authorities(self, tx: Tx, account: AccountId) -> ServerAuthorities:
        """Our own ones, and how far one is on its way to following the other."""
        return ServerAuthorities(
            current=self._server_authority(tx, account),
            next=self._store.find_own(tx, account, AuthorityPurpose.NEXT_SERVER_AUTHORITY),
            former=self._store.find_own(tx, account, AuthorityPurpose.FORMER_SERVER_AUTHORITY),
        )

    def begin_rotation(self, tx: Tx, account: AccountId) -> None:
        """Make the server authority that is to follow. Nothing that is shown changes.

        Raises:
            Conflict: a rotation is under way. Subject ``server-authority``.
        """
        standing = self.server_authorities(tx, account)
        if standing.phase is not RotationPhase.STEADY:
            raise _out_of_turn(standing.phase)
        # A name of its own: not every client tells two authorities of one name apart.
        name = f"Overair server authority {self._ids.secret_bytes(4).hex()}"
        self._authority(tx, account, AuthorityPurpose.NEXT_SERVER_AUTHORITY, name)

    def switch_authority(self, tx: Tx, account: AccountId) -> None:
        """From now on the next authority vouches for what is shown; both go on being trusted.

        Raises:
            Conflict: there is none. Subject ``server-authority``.
        """
        standing = self.server_authorities(tx, account)
        if standing.next is None:
            raise _out_of_turn(standing.phase)
        self._store.put_own(tx, replace(standing.current, purpose=AuthorityPurpose.FORMER_SERVER_AUTHORITY))
        self._store.put_own(tx, replace(standing.next, purpose=AuthorityPurpose.SERVER_AUTHORITY))
        self._store.delete_own(tx, account, AuthorityPurpose.NEXT_SERVER_AUTHORITY)

    def back_out(self, tx: Tx, account: AccountId) -> None:
        """Undo the last step: the former authority vouches again, or the next one is forgotten.

        Raises:
            Conflict: no rotation is under way. Subject ``server-authority``.
        """
        standing = self.server_authorities(tx, account)
        if standing.former is not None:
            self._store.put_own(tx, replace(standing.current, purpose=AuthorityPurpose.NEXT_SERVER_AUTHORITY))
            self._store.put_own(tx, replace(standing.former, purpose=AuthorityPurpose.SERVER_AUTHORITY))
            self._store.delete_own(tx, account, AuthorityPurpose.FORMER_SERVER_AUTHORITY)
        elif standing.next is not None:
            self._forget(tx, standing.next)
        else:
            raise _out_of_turn(standing.phase)

    def retire_former(self, tx: Tx, account: AccountId) -> None:
        """Trust the former authority no longer, and destroy its key.

        Raises:
            Conflict: there is none. Subject ``server-authority``.
        """
        standing = self.server_authorities(tx, account)
        if standing.former is None:
            raise _out_of_turn(standing.phase)
        self._forget(tx, standing.former)

    def renew_server_certificate(self, tx: Tx, account: AccountId) -> None:
        """Forget what is shown: the next look at it issues another one, by the same authority."""
        standing = self._store.find_own(tx, account, AuthorityPurpose.SERVER)
        if standing is not None:
            self._forget(tx, standing)

    def server_identity(self, tx: Tx, account: AccountId, hosts: Sequence[str]) -> ServerIdentity:
        """The server's certificate for exactly these hosts: issued again, with a new key, when they have changed, when it is
        about to expire, when its authority was replaced, or when it isn't there.

        Raises:
            InvalidRequest: a host is neither a name nor an address. Subject ``host``.
        """
        now = self._clock.now()
        authority = self._server_authority(tx, account)
        standing = self._store.find_own(tx, account, AuthorityPurpose.SERVER)
        if (
            standing is None
            or list(standing.hosts) != list(hosts)
            or standing.not_after - now < SERVER_CERTIFICATE_RENEWED_BEFORE_MS
            or not _issued(authority, standing)
        ):
            standing = self._issue_server(tx, account, authority, hosts, now, replaced=standing)
        return ServerIdentity(
            certificate_pem=standing.pem,
            authority_pem="".join(each.pem for each in self.server_authorities(tx, account).trusted),
            key_pem=self._keys.export_pem(tx, account, standing.key_id),
            not_after=standing.not_after,
        )

    def _issue_server(
        self,
        tx: Tx,
        account: AccountId,
        authority: OwnCertificate,
        hosts: Sequence[str],
        now: Instant,
        *,
        replaced: OwnCertificate | None,
    ) -> OwnCertificate:
        key_id = self._keys.create(tx, account, AUTHORITY_KEY_KIND, AuthorityPurpose.SERVER.value)
        until = Instant(now + SERVER_CERTIFICATE_LIFE_MS)
        leaf = x509.issue_server(
            self._issuer(tx, authority),
            hosts,
            self._held(tx, account, key_id).public_key(),
            now=now,
            until=until,
            serial=self._serial(),
        )
        issued = OwnCertificate(
            account=account,
            purpose=AuthorityPurpose.SERVER,
            pem=x509.pem_of(leaf),
            key_id=key_id,
            hosts=tuple(hosts),
            not_after=until,
            created_at=now,
        )
        self._store.put_own(tx, issued)
        if replaced is not None:
            self._keys.delete(tx, account, replaced.key_id)
        return issued

    def _keep_issuer(self, account: AccountId, key_id: KeyId, issuer: x509.Issuer) -> None:
        former = self._issuer_of.get(account)
        self._issuer_of[account] = key_id
        self._device_issuers[key_id] = issuer
        if former not in (None, key_id):
            self._device_issuers.pop(former, None)

    def _server_authority(self, tx: Tx, account: AccountId) -> OwnCertificate:
        return self._authority(tx, account, AuthorityPurpose.SERVER_AUTHORITY, "Overair server authority")

    def _forget(self, tx: Tx, certificate: OwnCertificate) -> None:
        self._store.delete_own(tx, certificate.account, certificate.purpose)
        self._keys.delete(tx, certificate.account, certificate.key_id)

    def _provisioning_authority(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose) -> OwnCertificate:
        return self._authority(tx, account, purpose, f"{_PROVISIONING_NAMES[purpose]} {account}")

    def _authority(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose, name: str) -> OwnCertificate:
        standing = self._store.find_own(tx, account, purpose)
        if standing is not None:
            return standing
        return self._make(tx, account, purpose, name, self._keys.create(tx, account, AUTHORITY_KEY_KIND, purpose.value))

    def _make(self, tx: Tx, account: AccountId, purpose: AuthorityPurpose, name: str, key_id: KeyId) -> OwnCertificate:
        now = self._clock.now()
        root = x509.issue_root(
            name,
            self._held(tx, account, key_id),
            now=now,
            serial=self._serial(),
            purpose=ExtendedKeyUsageOID.CLIENT_AUTH if purpose in _PROVISIONING_NAMES else None,
        )
        made = OwnCertificate(
            account=account,
            purpose=purpose,
            pem=x509.pem_of(root),
            key_id=key_id,
            hosts=(),
            not_after=x509.not_after(root),
            created_at=now,
        )
        self._store.put_own(tx, made)
        return made

    def _issuer(self, tx: Tx, authority: OwnCertificate) -> x509.Issuer:
        certificate = x509.certificate_from_pem(authority.pem.encode("ascii"))
        return x509.Issuer(certificate.subject, self._held(tx, authority.account, authority.key_id), certificate)

    def _held(self, tx: Tx, account: AccountId, key_id: KeyId) -> HeldKey:
        return HeldKey.behind(self._keys.public_key(tx, account, key_id), self._keys.signer(tx, account, key_id))

    def _serial(self) -> bytes:
        return self._ids.secret_bytes(x509.SERIAL_NUMBER_SIZE_BYTES)


def _issued(authority: OwnCertificate, leaf: OwnCertificate) -> bool:
    ours, theirs = (x509.certificate_from_pem(each.pem.encode("ascii")) for each in (authority, leaf))
    return x509.directly_issued(theirs, ours)


def _out_of_turn(phase: RotationPhase) -> Conflict:
    return Conflict(f"The server authority's rotation is {phase.value}, and {_NEXT_STEP[phase]}.", subject="server-authority")
