"""The user's own server certificate: read out of files, checked before anybody is shown it, read again when they change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.clock import Instant, as_datetime
from overair.basics.errors import InvalidRequest
from overair.basics.redacted import Redacted
from overair.server.certificates import x509 as certificates_x509
from overair.server.certificates.authorities import ServerIdentity

FILE_SIZE_BYTES_MAX: Final = 256 * 1024
CERTIFICATES_MAX: Final = 10
ANCHORS_MAX: Final = 50
_SUBJECT: Final = "server-certificate"
_Seen = tuple[tuple[int, int, int] | None, ...]


class ServerFiles:
    """A certificate with its chain, its key, and whom clients are to trust."""

    def __init__(self, *, certificate_file: Path, key_file: Path, ca_file: Path) -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._ca_file = ca_file
        self._seen: _Seen | None = None
        self._anchors_pem = ""

    @property
    def anchors_pem(self) -> str:
        """Whom clients are to trust, as of the last good reading."""
        return self._anchors_pem

    def changed(self) -> bool:
        """Whether a file isn't the one that was read or seen last; asking again says no until another change."""
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        return True

    def read(self, hosts: Sequence[str], *, now: Instant) -> ServerIdentity:
        """The pair, once it is known to be good for these hosts.

        Raises:
            InvalidRequest: a file can't be read, or the certificate would be refused by whoever connects. Subject
                ``server-certificate``; the message names the file and the rule.
        """
        self._seen = self._look()
        certificate_pem, key_pem, ca_pem = (_content(each) for each in self._files)
        chain = self._certificates(self._certificate_file, certificate_pem, count_max=CERTIFICATES_MAX)
        anchors = self._certificates(self._ca_file, ca_pem, count_max=ANCHORS_MAX)
        leaf = chain[0]
        self._check_key(leaf, key_pem)
        self._check_leaf(leaf, hosts, now=now)
        self._check_chain(chain, anchors, now=now)
        self._anchors_pem = "".join(certificates_x509.pem_of(each) for each in anchors)
        return ServerIdentity(
            certificate_pem="".join(certificates_x509.pem_of(each) for each in chain),
            authority_pem=self._anchors_pem,
            key_pem=Redacted(key_pem),
            not_after=min(certificates_x509.not_after(each) for each in chain),
        )

    @property
    def _files(self) -> tuple[Path, Path, Path]:
        return self._certificate_file, self._key_file, self._ca_file

    def _look(self) -> _Seen:
        return tuple(_stamp(each) for each in self._files)

    def _certificates(self, file: Path, pem: bytes, *, count_max: int) -> list[x509.Certificate]:
        try:
            return certificates_x509.certificates_from_pem(pem, size_bytes_max=FILE_SIZE_BYTES_MAX, count_max=count_max)
        except InvalidRequest as broken:
            raise _refused(file, broken.message) from None

    def _check_key(self, leaf: x509.Certificate, key_pem: bytes) -> None:
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
            fits = key.public_key() == leaf.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _refused(self._key_file, "It must hold one unencrypted private key in PEM.") from None
        if not fits:
            raise _refused(self._key_file, f"The private key isn't that of the first certificate in {self._certificate_file}.")
        try:
            certificates_x509.accepted_public_key(leaf, field="server certificate")
        except InvalidRequest as weak:
            raise _refused(self._certificate_file, weak.message) from None

    def _check_leaf(self, leaf: x509.Certificate, hosts: Sequence[str], *, now: Instant) -> None:
        file = self._certificate_file
        begins, ends = certificates_x509.not_before(leaf), certificates_x509.not_after(leaf)
        if not begins <= now <= ends:
            dates = f"{as_datetime(begins).isoformat()} to {as_datetime(ends).isoformat()}"
            raise _refused(file, f"The certificate holds from {dates}, not now.")
        try:
            purposes = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        except x509.ExtensionNotFound:
            purposes = set()
        if purposes and purposes.isdisjoint({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}):
            raise _refused(file, "Its extended key usage doesn't contain serverAuth (1.3.6.1.5.5.7.3.1).")
        if missing := [host for host in hosts if not names_host(leaf, host)]:
            raise _refused(
                file,
                f"It doesn't name {', '.join(missing)} among its subject alternative names. Name every --host in it, or start "
                "with the hosts that it names.",
            )

    def _check_chain(self, chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], *, now: Instant) -> None:
        """From the leaf over what is sent with it to an anchor, each the issuer of the one before it."""
        known = {certificates_x509.fingerprint(each) for each in anchors}
        for position, certificate in enumerate(chain):
            if certificates_x509.fingerprint(certificate) in known:
                return
            for anchor in anchors:
                if certificates_x509.directly_issued(certificate, anchor):
                    if now > certificates_x509.not_after(anchor):
                        raise _refused(self._ca_file, "The authority behind the server's certificate has expired.")
                    return
            if position + 1 == len(chain):
                break
            if not certificates_x509.directly_issued(certificate, chain[position + 1]):
                raise _refused(
                    self._certificate_file,
                    f"Certificate {position + 2} isn't the issuer of certificate {position + 1}. The server's own comes first, "
                    "then its issuers in their order.",
                )
        raise _refused(
            self._certificate_file, f"No authority in {self._ca_file} stands behind it. Add the certificates between them."
        )


def names_host(leaf: x509.Certificate, host: str) -> bool:
    """Whether a client that connects to this host accepts the certificate's names; a wildcard stands for one label."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    wanted = certificates_x509.general_name(host)
    if isinstance(wanted, x509.IPAddress):
        return wanted.value in names.get_values_for_type(x509.IPAddress)
    name = host.lower()
    dns_names = {each.lower() for each in names.get_values_for_type(x509.DNSName)}
    return name in dns_names or "*." + name.partition(".")[2] in dns_names


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise _refused(file, f"It can't be read: {error.strerror}.") from error


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _refused(file: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"The server certificate of your files can't be used: {file}: {why}", subject=_SUBJECT)
