"""ACM's certificates: what operators import to sign images with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from cryptography import x509 as pyca
from cryptography.hazmat.primitives import serialization

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId, IdSource, KeyId
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.certificates import facts, x509
from overair.server.certificates.keys import AUTHORITY_KEY_KIND, HeldKey
from overair.server.certificates.model import AcmCertificate
from overair.server.keyring.keys import load_public_key
from overair.server.keyring.model import HOLDER_LENGTH_MAX, PreparedKey, SignatureAlgorithm
from overair.server.keyring.service import Keyring

CERTIFICATE_SIZE_BYTES_MAX: Final = 32_768
PRIVATE_KEY_SIZE_BYTES_MAX: Final = 5_120
"""Wire reference §6.7; the model itself would let 8192 through."""
CHAIN_SIZE_BYTES_MAX: Final = 2_097_152
TAGS_MAX: Final = 50
KEY_PURPOSE: Final = "acm"
PAGE_SIZE: Final = 100
_URI: Final = re.compile(rb"(?!file:)[a-z][a-z0-9]{1,31}:[\x21-\x7e]+")
OWN_SIGNER_LIFE_MS: Final = 10 * 365 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmQuery:
    """Which certificates a list shows; an empty collection means any."""

    statuses: frozenset[str] = frozenset()
    key_algorithms: frozenset[str] = frozenset()
    key_usages: frozenset[str] = frozenset()
    extended_key_usages: frozenset[str] = frozenset()
    ascending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmImport:
    """What ImportCertificate was given, read and checked as far as needs neither the time nor a record."""

    leaf: pyca.Certificate
    key: PreparedKey
    chain: tuple[pyca.Certificate, ...] = ()
    """The issuers above the leaf, nearest first."""
    arn: str | None = None
    """Of the certificate to replace; None makes a new one."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        *,
        certificate_pem: bytes,
        private_key_pem: Redacted[bytes],
        chain_pem: bytes = b"",
        arn: str | None = None,
        tags: Mapping[str, str] | None = None,
        held: PreparedKey | None = None,
    ) -> AcmImport:
        """Read PEM texts. Checking an RSA key takes milliseconds: not for the writer's thread.

        Args:
            held: The private key, where it isn't in a PEM text.

        Raises:
            InvalidRequest: subjects ``certificate``, ``private-key``, ``chain``, ``tags``.
            LimitExceeded: subject ``tags``.
        """
        leaf = x509.certificate_from_pem(certificate_pem, size_bytes_max=CERTIFICATE_SIZE_BYTES_MAX)
        if not list(leaf.issuer):
            raise InvalidRequest("The certificate names no issuer.", subject="certificate")
        if facts.signature_family(leaf) != facts.key_family(leaf):
            raise InvalidRequest(
                f"The certificate's key is {facts.key_family(leaf) or 'of an unknown kind'}, but its issuer signed with "
                f"{facts.signature_family(leaf) or 'an unknown algorithm'}. Both must be RSA, or both ECDSA.",
                subject="certificate",
            )
        check_tags(tags or {})
        return cls(
            leaf=leaf,
            key=_read_private_key(leaf, private_key_pem) if held is None else held,
            chain=_read_chain(leaf, chain_pem),
            arn=arn,
            tags=tags or {},
        )


class AcmStore(Protocol):
    """The rows of imported certificates."""

    def find_acm(self, tx: Tx, account: AccountId, certificate: str) -> AcmCertificate | None: ...

    def put_acm(self, tx: Tx, certificate: AcmCertificate) -> None:
        """Insert, or replace the one with the same id."""
        ...

    def delete_acm(self, tx: Tx, account: AccountId, certificate: str) -> None: ...

    def page_acm(
        self, tx: Tx, account: AccountId, query: AcmQuery, *, now: Instant, after: tuple[int, str] | None, limit: int
    ) -> Sequence[AcmCertificate]:
        """By (creation time, id), from just after a position; newest first unless ascending."""
        ...


class InUse(Protocol):
    """Who uses an imported certificate: signing, with its profiles."""

    def users_of_certificate(self, tx: Tx, place: Place, certificate_arn: str) -> Sequence[str]:
        """ARNs of what uses it; empty when nothing does."""
        ...

    def certificate_replaced(self, tx: Tx, place: Place, certificate_arn: str, *, self_signed: bool) -> None:
        """Another certificate stands under the same ARN from now on."""
        ...


class AcmService:
    """Imports, shows and removes certificates with private keys.

    Raises, everywhere: ``InvalidRequest`` (subjects ``certificate``, ``private-key``, ``chain``, ``arn``, ``tags``),
    ``NotFound(subject="certificate")``, ``Conflict(subject="in-use")``, ``LimitExceeded(subject="tags")``.
    """

    def __init__(self, *, store: AcmStore, keys: Keyring, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._ids = ids
        self._uses: list[InUse] = []

    def used_by(self, uses: InUse) -> None:
        """Register, at composition, a room above that signs with these certificates."""
        self._uses.append(uses)

    def read(
        self,
        place: Place,
        *,
        certificate_pem: bytes,
        private_key: Redacted[bytes],
        chain_pem: bytes = b"",
        arn: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AcmImport:
        """``AcmImport.read``; in place of a private key a URI may say who holds it (``keyring.holders``), who is asked for a
        signature. Not for the writer's thread.

        Raises:
            InvalidRequest, LimitExceeded: see ``AcmImport.read``; subject ``key-holder``.
            Conflict: subject ``key-holder``: the holder doesn't sign, or holds another key than the certificate's.
        """
        uri = holder_uri(private_key)
        held: PreparedKey | None = None
        if uri is not None:
            leaf = x509.certificate_from_pem(certificate_pem, size_bytes_max=CERTIFICATE_SIZE_BYTES_MAX)
            public_key = load_public_key(x509.public_key_der(leaf))
            is_rsa = facts.key_family(leaf) == "RSA"
            proof = SignatureAlgorithm.RSA_PKCS1_SHA256 if is_rsa else None
            held = self._keys.hold(place.account, uri, public_key=public_key, proof=proof)
        return AcmImport.read(
            certificate_pem=certificate_pem, private_key_pem=private_key, chain_pem=chain_pem, arn=arn, tags=tags, held=held
        )

    def import_certificate(self, tx: Tx, place: Place, given: AcmImport) -> AcmCertificate:
        """Take in a certificate with its key (ImportCertificate, wire reference §6.7).

        The key is unencrypted PEM of at most 5120 bytes and matches; the certificate holds now and names an issuer; its key
        is of the same family as its issuer's signature; a chain, where given, leads from it upwards. Self-signed is fine.

        Over an ARN that is there it renews: what uses the certificate goes on with the new one and its key. As with AWS the new
        one is for at least as much as the old one: a key of the same kind and size, no usage fewer, a name if it had one.
        """
        now = self._clock.now()
        standing = self.describe(tx, place, given.arn) if given.arn else None
        if standing is not None and given.tags:
            raise InvalidRequest(
                "Tags can't be given when a certificate is imported again. Use AddTagsToCertificate.", subject="tags"
            )
        leaf = given.leaf
        if now < x509.not_before(leaf) or now > x509.not_after(leaf):
            raise InvalidRequest(
                "The certificate is not valid now: it holds from "
                f"{leaf.not_valid_before_utc.isoformat()} to {leaf.not_valid_after_utc.isoformat()}.",
                subject="certificate",
            )
        key_id = self._keys.keep(tx, place.account, given.key, KEY_PURPOSE)
        row = self._row(
            place, leaf, key_id, now=now, chain_pem="".join(x509.pem_of(issuer) for issuer in given.chain), tags=given.tags
        )
        if standing is not None:
            _check_renews(standing, row)
            for uses in self._uses:
                uses.certificate_replaced(tx, place, standing.arn, self_signed=row.facts.self_signed)
            row = replace(row, id=standing.id, arn=standing.arn, created_at=standing.created_at, tags=standing.tags)
            self._keys.delete(tx, place.account, standing.key_id)
        self._store.put_acm(tx, row)
        return row

    def create_own_signer(self, tx: Tx, place: Place, name: str) -> AcmCertificate:
        """A code-signing certificate of our own making, so that a newcomer can ship at once: ECDSA P-256, self-signed, for
        ten years. Its key is born in the keyring and was never anywhere else."""
        now = self._clock.now()
        key_id = self._keys.create(tx, place.account, AUTHORITY_KEY_KIND, KEY_PURPOSE)
        held = HeldKey.behind(self._keys.public_key(tx, place.account, key_id), self._keys.signer(tx, place.account, key_id))
        leaf = x509.issue_code_signing(
            name,
            held,
            now=now,
            until=Instant(now + OWN_SIGNER_LIFE_MS),
            serial=self._ids.secret_bytes(x509.SERIAL_NUMBER_SIZE_BYTES),
        )
        row = self._row(place, leaf, key_id, now=now, chain_pem="", tags={})
        self._store.put_acm(tx, row)
        return row

    def describe(self, tx: Tx, place: Place, arn: str) -> AcmCertificate:
        """One certificate by its ARN."""
        identity = certificate_id_of(place, arn)
        found = self._store.find_acm(tx, place.account, identity)
        if found is None:
            raise NotFound(f"Could not find certificate {arn}.", subject="certificate")
        return found

    def users(self, tx: Tx, place: Place, arn: str) -> Sequence[str]:
        """What uses the certificate."""
        return [user for uses in self._uses for user in uses.users_of_certificate(tx, place, arn)]

    def page(
        self, tx: Tx, account: AccountId, query: AcmQuery, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[AcmCertificate]:
        """Certificates by creation time, newest first unless asked otherwise."""
        return self._store.page_acm(tx, account, query, now=self._clock.now(), after=after, limit=limit)

    def holds_key_of(self, tx: Tx, account: AccountId, certificate_pem: str) -> bool:
        """Whether the private key of a certificate is held here, under that certificate or another of its key."""
        wanted = _key_of(certificate_pem.encode())
        after = None
        while page := self._store.page_acm(tx, account, AcmQuery(), now=self._clock.now(), after=after, limit=PAGE_SIZE):
            if any(_key_of(each.pem.encode()) == wanted for each in page):
                return True
            after = (page[-1].created_at, page[-1].id)
        return False

    def delete(self, tx: Tx, place: Place, arn: str) -> None:
        """Remove a certificate and forget its key; refused while something uses it."""
        found = self.describe(tx, place, arn)
        users = self.users(tx, place, arn)
        if users:
            raise Conflict(
                f"Certificate {arn} is in use by {', '.join(users[:5])}. Cancel what uses it first.", subject="in-use"
            )
        self._store.delete_acm(tx, place.account, found.id)
        self._keys.delete(tx, place.account, found.key_id)

    def tags_of(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        """What conditions ask (``aws:ResourceTag``) before the certificate is known to be there. Raises nothing."""
        found = self._store.find_acm(tx, account, arn.rpartition("/")[2])
        return {} if found is None or found.arn != arn else found.tags

    def add_tags(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str]) -> None:
        """Set these tags; a key that is there gets the new value."""
        check_tags(tags)
        found = self.describe(tx, place, arn)
        merged = {**found.tags, **tags}
        if len(merged) > TAGS_MAX:
            raise LimitExceeded(f"A certificate carries at most {TAGS_MAX} tags.", subject="tags")
        self._store.put_acm(tx, replace(found, tags=merged))

    def remove_tags(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str | None]) -> None:
        """Take these tags away; where a value is given, only if it is the present one."""
        found = self.describe(tx, place, arn)
        kept = {
            key: value for key, value in found.tags.items() if key not in tags or (tags[key] is not None and tags[key] != value)
        }
        self._store.put_acm(tx, replace(found, tags=kept))

    def _row(
        self, place: Place, leaf: pyca.Certificate, key_id: KeyId, *, now: Instant, chain_pem: str, tags: Mapping[str, str]
    ) -> AcmCertificate:
        identity = self._ids.uuid()
        names = facts.dns_names(leaf)
        return AcmCertificate(
            account=place.account,
            id=identity,
            arn=place.acm(identity),
            pem=x509.pem_of(leaf),
            chain_pem=chain_pem,
            key_id=key_id,
            facts=facts.code_signing_facts(leaf),
            serial=facts.serial(leaf),
            subject=facts.printable(leaf.subject.rfc4514_string()),
            issuer=facts.printable(leaf.issuer.rfc4514_string()),
            domain_name=facts.first_common_name(leaf) or (names[0] if names else ""),
            alternative_names=names,
            signature_algorithm=facts.signature_algorithm(leaf),
            not_before=x509.not_before(leaf),
            not_after=x509.not_after(leaf),
            created_at=now,
            imported_at=now,
            tags=dict(tags),
        )


def holder_uri(private_key: Redacted[bytes]) -> str | None:
    """The URI that stands where a private key is expected; None where it is no URI."""
    text = private_key.reveal()
    if len(text) > HOLDER_LENGTH_MAX or not _URI.fullmatch(text.strip()):
        return None
    return text.strip().decode("ascii")


def _check_renews(standing: AcmCertificate, new: AcmCertificate) -> None:
    """AWS's conditions of importing again (ACM user guide, "Reimporting a certificate").

    Raises:
        InvalidRequest: subject ``certificate``.
    """

    def refuse(why: str) -> InvalidRequest:
        return InvalidRequest(
            f"The certificate can't take the place of {standing.arn}: {why}. "
            "Import it as one of its own, without CertificateArn.",
            subject="certificate",
        )

    before, after = standing.facts, new.facts
    if after.key_algorithm != before.key_algorithm:
        raise refuse(f"its key is {after.key_algorithm}, not {before.key_algorithm}; kind and size of the key stay")
    lost = sorted(set(before.key_usages) - set(after.key_usages))
    lost += [name for name, oid in before.extended_key_usages if oid not in {oid for _, oid in after.extended_key_usages}]
    # Public authorities stopped putting clientAuth into servers' certificates, and ACM lets it go.
    lost = [name for name in lost if name != "TLS_WEB_CLIENT_AUTHENTICATION"]
    if lost:
        raise refuse(f"it isn't for {', '.join(lost)}, as the present one is; usages can be added, not taken away")
    if standing.domain_name and not new.domain_name:
        raise refuse("it has no name, and the present one has")


def certificate_id_of(place: Place, arn: str) -> str:
    """The UUID in a certificate's ARN.

    Raises:
        InvalidRequest: not an ACM certificate ARN, subject ``arn``.
        NotFound: of another region or account, whose certificates nobody here can see.
    """
    read = parse_arn(arn)
    if read.service != "acm" or read.kind != "certificate" or not read.name or "/" in read.name:
        raise InvalidRequest(
            f"{arn[:200]!r} is not a certificate's ARN. It reads arn:aws:acm:REGION:ACCOUNT:certificate/ID.", subject="arn"
        )
    if read.account != place.account or read.region != place.region:
        raise NotFound(f"Could not find certificate {arn}.", subject="certificate")
    return read.name


def _read_private_key(leaf: pyca.Certificate, pem: Redacted[bytes]) -> PreparedKey:
    """A private key that is readable, unencrypted and the certificate's own. Messages never show the key."""
    size_bytes = len(pem.reveal())
    if size_bytes > PRIVATE_KEY_SIZE_BYTES_MAX:
        raise InvalidRequest(
            f"The private key is {size_bytes} bytes long; at most {PRIVATE_KEY_SIZE_BYTES_MAX} are accepted.",
            subject="private-key",
        )
    key = Keyring.read_pem(pem)
    if key.public_key_der != x509.public_key_der(leaf):
        raise InvalidRequest("The private key doesn't match the certificate's public key.", subject="private-key")
    return key


def _read_chain(leaf: pyca.Certificate, pem: bytes) -> tuple[pyca.Certificate, ...]:
    if not pem:
        return ()
    chain = x509.certificates_from_pem(
        pem, size_bytes_max=CHAIN_SIZE_BYTES_MAX, count_max=x509.CHAIN_CERTIFICATES_MAX, field="certificate chain"
    )
    for below, above in zip([leaf, *chain], chain, strict=False):
        if not x509.directly_issued(below, above):
            raise InvalidRequest(
                "Could not validate the certificate with the certificate chain: "
                f"{below.subject.rfc4514_string()!r} isn't signed by {above.subject.rfc4514_string()!r}. "
                "List the issuers from the nearest upwards.",
                subject="chain",
            )
    return tuple(chain)


def _key_of(certificate_pem: bytes) -> bytes:
    key = pyca.load_pem_x509_certificate(certificate_pem).public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def check_tags(tags: Mapping[str, str]) -> None:
    """See that tags keep AWS's rules: at most 50, none beginning with ``aws:``.

    Raises:
        InvalidRequest, LimitExceeded: subject ``tags``.
    """
    if len(tags) > TAGS_MAX:
        raise LimitExceeded(f"A certificate carries at most {TAGS_MAX} tags.", subject="tags")
    for key in tags:
        if key.lower().startswith("aws:"):
            raise InvalidRequest(f"The tag key {key!r} begins with aws:, which is reserved.", subject="tags")
