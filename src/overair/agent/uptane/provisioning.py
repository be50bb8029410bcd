"""How a device gets its identity: from a shared credential, or from files of the operator's own PKI.

Uptane reference §3.2, §3.3, §10, §12. A shared credential is used once: the id is chosen and kept before it is asked for, so
that a power cut between the answer and the disk asks for the same id again; once the identity is on the disk the credential is
taken out of its archive.
"""

from __future__ import annotations

import io
import json
import logging
import ssl
import string
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import pkcs12

from overair.agent.durable import Disk
from overair.agent.tls import tls_context
from overair.agent.uptane.https import Answer, HttpClient
from overair.agent.uptane.identity import (
    UNREADABLE,
    BadIdentity,
    Identity,
    IdentityStore,
    chain_to_pem,
    common_name,
    key_to_pem,
)
from overair.agent.uptane.settings import ImportedFiles
from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.wire import strict_json
from overair.wire.uptane.metadata import Repository

LOG = logging.getLogger("overair.uptane")

ARCHIVE_SIZE_BYTES_MAX: Final = 4 * 1024 * 1024
ENTRY_SIZE_BYTES_MAX: Final = 256 * 1024
CREDENTIAL_ENTRY: Final = "autoprov_credentials.p12"
STRIPPED_ENTRIES: Final = frozenset({CREDENTIAL_ENTRY, "treehub.json", "client_auth.p12", "targets.sec"})
"""The credential, and what a combined archive has for operators and signers."""
LIFE_DAYS: Final = "36000"
"""What is asked for, as a text, as aktualizr does; the server caps it."""
ROOT_ENTRIES: Final = {
    Repository.DIRECTOR: ("director/root.json", "director_root.json"),
    Repository.IMAGE: ("repo/root.json", "root.json"),
}
ID_TAKEN: Final = "device_already_registered"
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)
"""What reading a zip may end in."""
_ID_ALPHABET: Final = string.ascii_lowercase + string.digits


class ProvisioningFailed(Exception):
    """No identity yet. ``for_good``: asking again without a change by hand can't help."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCredential:
    """What a ``credentials.zip`` holds for a device."""

    gateway: str | None
    pair_pem: Redacted[bytes] | None
    """Key and certificate chain; None once they were used."""
    ca_pem: bytes
    roots: Mapping[Repository, bytes] = field(default_factory=dict)
    """First trusted roots, where the archive has them."""


def read_credential(path: Path) -> SharedCredential:
    """Read an archive.

    Raises:
        ProvisioningFailed: it can't be read, or lacks what it must have.
    """
    try:
        with path.open("rb") as file:
            data = file.read(ARCHIVE_SIZE_BYTES_MAX + 1)
        if len(data) > ARCHIVE_SIZE_BYTES_MAX:
            raise ValueError(f"it has more than {ARCHIVE_SIZE_BYTES_MAX} bytes")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: _entry(archive, name) for name in archive.namelist() if not name.endswith("/")}
    except (OSError, ValueError, *_DAMAGED) as error:
        raise ProvisioningFailed(f"{path} can't be used as a shared credential: {error}", for_good=True) from None
    url = entries.get("autoprov.url")
    pair, authorities = _unpacked(entries.get(CREDENTIAL_ENTRY), path)
    return SharedCredential(
        gateway=None if url is None else url.decode("utf-8", "replace").strip().rstrip("/"),
        pair_pem=None if pair is None else Redacted(pair),
        ca_pem=entries.get("server_ca.pem") or authorities,
        roots={kind: entries[name] for kind, names in ROOT_ENTRIES.items() for name in reversed(names) if name in entries},
    )


def strip_credential(path: Path, disk: Disk) -> bool:
    """Take the shared credential out of its archive: whoever finds it can make devices. Whether it could be done."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not STRIPPED_ENTRIES & set(archive.namelist()):
                return True
            kept = {info: archive.read(info) for info in archive.infolist() if info.filename not in STRIPPED_ENTRIES}
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as smaller:
            for info, data in kept.items():
                smaller.writestr(info, data)
        disk.write_whole(path, stream.getvalue())
    except FileNotFoundError:
        return True
    except (OSError, *_DAMAGED) as error:
        LOG.warning("the shared credential stays in %s, where it can be stolen: %s", path, error)
        return False
    return True


class SharedProvisioning:
    """Asks the gateway for an identity with a shared credential."""

    def __init__(
        self,
        store: IdentityStore,
        *,
        credential_file: Path,
        id_file: Path,
        configured_id: str | None,
        ids: IdSource,
        disk: Disk,
        client: Callable[[str, ssl.SSLContext], HttpClient],
    ) -> None:
        self._store = store
        self._credential_file = credential_file
        self._id_file = id_file
        self._configured_id = configured_id
        self._ids = ids
        self._disk = disk
        self._client = client

    def run(self, *, gateway: str | None) -> Identity:
        """Ask once; with a chosen id once more for each that is taken.

        Raises:
            ProvisioningFailed, TransportFailed
        """
        credential = read_credential(self._credential_file)
        url = gateway or credential.gateway
        if credential.pair_pem is None:
            raise ProvisioningFailed(
                f"{self._credential_file} has no {CREDENTIAL_ENTRY} any more: it was used before. Put a fresh archive there.",
                for_good=True,
            )
        if url is None or not url.startswith("https://"):
            raise ProvisioningFailed("No https address to ask: neither in device.json nor in autoprov.url.", for_good=True)
        try:
            context = context_of(credential.pair_pem, credential.ca_pem)
        except (OSError, BadIdentity) as error:
            raise ProvisioningFailed(f"The shared credential can't be used: {error}", for_good=True) from None
        client = self._client(url, context)
        try:
            return self._ask(client, url, credential)
        finally:
            client.close()

    def finish(self) -> None:
        """The identity is on the disk: the credential must go."""
        strip_credential(self._credential_file, self._disk)

    def _ask(self, client: HttpClient, url: str, credential: SharedCredential) -> Identity:
        while True:
            name = self._chosen_id()
            body = json.dumps({"deviceId": name, "ttl": LIFE_DAYS}).encode()
            # Not repeated here: the first answer may have been lost after the server acted on it.
            answer = client.request("POST", f"{url}/devices", body=body, attempts=1)
            if answer.ok:
                return self._store_answer(answer.body, name, gateway=url, ca_pem=credential.ca_pem)
            code, description = error_of(answer)
            if code != ID_TAKEN:
                raise ProvisioningFailed(f"The gateway gives no identity ({code or answer.status}): {description}")
            if self._configured_id is not None:
                raise ProvisioningFailed(
                    f"The id {name!r} is taken ({description}). Configure another, or free it on the server.", for_good=True
                )
            LOG.info("the id %s is taken; choosing another", name)
            self._disk.remove(self._id_file)

    def _chosen_id(self) -> str:
        """The same at each attempt, also over a power cut."""
        if self._configured_id is not None:
            return self._configured_id
        try:
            return self._id_file.read_text().strip()
        except FileNotFoundError:
            name = f"device-{self._ids.token(16, _ID_ALPHABET)}"
            self._disk.write_whole(self._id_file, name.encode() + b"\n")
            return name

    def _store_answer(self, container: bytes, name: str, *, gateway: str, ca_pem: bytes) -> Identity:
        try:
            key, certificate, others = _container(container)
            if common_name(certificate) != name:
                raise BadIdentity(f"it is for {common_name(certificate)!r}, and {name!r} was asked for")
            self._store.provision(
                private_key_pem=key_to_pem(key),
                chain_pem=chain_to_pem([certificate, *others]),
                # Whoever signed the gateway's own certificate stays trusted, whatever the answer adds.
                ca_pem=ca_pem.rstrip() + b"\n" + chain_to_pem(others),
                gateway=gateway,
            )
        except BadIdentity as error:
            raise ProvisioningFailed(f"The gateway's identity can't be used: {error}") from None
        identity = self._store.current()
        assert identity is not None
        return identity


def import_files(store: IdentityStore, files: ImportedFiles, root: Path) -> None:
    """Take over what changed in the operator's files since the last start: the first time as the identity, later as the next
    one, which counts once a call under it has succeeded. Files that can't be used leave everything as it is.

    Raises:
        ProvisioningFailed: there is no identity yet, and the files don't give one.
    """
    present = store.current()
    try:
        certificate, key, ca = ((root / name).read_bytes() for name in (files.certificate, files.private_key, files.ca))
        if present is None and store.next() is None:
            store.provision(private_key_pem=key, chain_pem=certificate, ca_pem=ca, gateway=None)
            return
        if ca != store.ca_file.read_bytes():
            store.trust(ca)
            LOG.warning("%s changed: it says whom to trust from now on", files.ca)
        if present is not None and certificate != present.certificate_file.read_bytes():
            store.propose(private_key_pem=key, chain_pem=certificate, name=present.name)
            LOG.info("%s changed: it is tried at the next call", files.certificate)
    except (OSError, BadIdentity) as error:
        if present is None and store.next() is None:
            raise ProvisioningFailed(f"The files of the own PKI give no identity: {error}", for_good=True) from None
        LOG.warning("the files of the own PKI are left aside: %s", error)


def context_of(pair_pem: Redacted[bytes], ca_pem: bytes) -> ssl.SSLContext:
    """TLS with a credential that lies in memory; the library reads files only, so it lies in one for a moment.

    Raises:
        OSError, BadIdentity
    """
    if not ca_pem.strip():
        raise BadIdentity("it doesn't say whom to trust: neither server_ca.pem nor a CA beside the certificate")
    with tempfile.TemporaryDirectory() as folder:
        pair, authorities = Path(folder) / "pair.pem", Path(folder) / "ca.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(pair_pem.reveal())
        authorities.write_bytes(ca_pem)
        return tls_context(authorities, certificate_file=pair)


def error_of(answer: Answer) -> tuple[str, str]:
    """Code and words of a refusal; empty where the answer isn't one of ours."""
    try:
        members = strict_json.decode_object(answer.body, size_bytes_max=64 * 1024)
    except strict_json.MalformedJson:
        return "", f"status {answer.status}"
    code, description = members.get("code"), members.get("description")
    return (code if isinstance(code, str) else ""), (description if isinstance(description, str) else f"status {answer.status}")


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as entry:
        data = entry.read(ENTRY_SIZE_BYTES_MAX + 1)
    if len(data) > ENTRY_SIZE_BYTES_MAX:
        raise ValueError(f"{name[:100]} has more than {ENTRY_SIZE_BYTES_MAX} bytes")
    return data


def _unpacked(container: bytes | None, path: Path) -> tuple[bytes | None, bytes]:
    """(key and chain, the CA certificates beside them), in PEM."""
    if container is None:
        return None, b""
    try:
        key, certificate, others = _container(container)
    except BadIdentity as error:
        raise ProvisioningFailed(f"{path}: {CREDENTIAL_ENTRY}: {error}", for_good=True) from None
    return key_to_pem(key) + chain_to_pem([certificate, *others]), chain_to_pem(others)


def _container(data: bytes) -> tuple[CertificateIssuerPrivateKeyTypes, x509.Certificate, list[x509.Certificate]]:
    """Key, certificate and further certificates of a PKCS #12 without a password: not encrypted at all, or under an empty one.

    Raises:
        BadIdentity
    """
    problem: Exception = ValueError()
    for password in (None, b""):
        try:
            bundle = pkcs12.load_pkcs12(data, password)
        except UNREADABLE as error:
            problem = error
            continue
        if bundle.key is None or bundle.cert is None:
            raise BadIdentity("the PKCS #12 lacks a key or a certificate")
        others = [each.certificate for each in bundle.additional_certs]
        return cast("CertificateIssuerPrivateKeyTypes", bundle.key), bundle.cert.certificate, others
    raise BadIdentity(f"no PKCS #12 without a password: {problem}")
