"""The server that a fleet leaves: where it is, whom to trust there, and by which right it is read (Uptane reference §9.3, §10).

OTA Connect's REST, over HTTPS only: named by the ``credentials.zip`` of a signing tool or an operator, by its address, or, for
a server of ours on this machine, by its state directory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from overair.basics.clock import Clock
from overair.basics.redacted import Redacted
from overair.cli.credentials_zip import BundleUnreadable, OAuth2Client, https_url, oauth2_client, read_entries
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import read_endpoints, read_key
from overair.cli.rest import (
    ClientCertificate,
    Opened,
    Proof,
    RestAnswer,
    RestClient,
    RestRefused,
    SigV4Proof,
    TokenProof,
)

REDIRECTS_MAX: Final = 5
USER_REPO: Final = "/api/v1/user_repo"
DIRECTORS: Final = ("/api/v1/director", "/api/v1")
"""Where the Director's admin paths may begin: behind a gateway, and without one."""
_ENTRIES: Final = (
    "tufrepo.url",
    "api_gateway.url",
    "treehub.json",
    "server_ca.pem",
    "root.json",
    "director_root.json",
    "client_auth.p12",
    "server.p12",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What an operator says of the server beside its address."""

    client_id: str = ""
    secret: Redacted[str] | None = None
    token_url: str = ""
    client_p12: Redacted[bytes] | None = None
    password: Redacted[str] | None = None
    """Of PKCS#12 files."""
    ca: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    image_url: str
    gateway_url: str
    proof: Proof = None
    client_p12: Redacted[bytes] | None = None
    ca: bytes | None = None
    roots: Mapping[str, bytes] = field(default_factory=dict)


class Source:
    """One server's REST, read only."""

    def __init__(self, client: RestClient, stranger: RestClient, *, image_url: str, gateway_url: str) -> None:
        """``stranger``: speaks to other hosts, to which a redirect leads, and proves nothing to them."""
        self._client, self._stranger = client, stranger
        self.image_url, self.gateway_url = image_url, gateway_url
        self.pins: dict[str, bytes] = {}
        """Repository → the root that came with the bundle."""

    def image(self, path: str, **query: str) -> RestAnswer:
        """Of the Image repository, below ``/api/v1/user_repo/``."""
        return self._client.ask("GET", f"{self.image_url}{USER_REPO}/{path}", query=query)

    def gateway(self, path: str, **query: str) -> RestAnswer:
        """Of everything else."""
        return self._client.ask("GET", f"{self.gateway_url}{path}", query=query)

    @contextmanager
    def file(self, name: str, *, from_byte: int) -> Iterator[Opened]:
        """An image's bytes, wherever the server says that they are.

        Raises:
            RestRefused: too many redirects, or one that leaves TLS. RestUnreachable
        """
        url = f"{self.image_url}{USER_REPO}/targets/{quote(name, safe='/-._~')}"
        home = _origin(url)
        for _ in range(REDIRECTS_MAX):
            client = self._client if _origin(url) == home else self._stranger
            with client.open(url, from_byte=from_byte) as opened:
                if opened.status not in (301, 302, 303, 307, 308):
                    yield opened
                    return
                url = urljoin(url, opened.headers.get("location", ""))
            if urlsplit(url).scheme != "https":
                raise RestRefused(f"The server sends {name} to {url[:200]!r}, where nothing is encrypted.")
        raise RestRefused(f"The server sends {name} from one address to another, {REDIRECTS_MAX} times.")


@contextmanager
def open_source(named: str, access: Access, *, clock: Clock) -> Iterator[Source]:
    """The server that ``--from`` names. Keys that TLS needs as files lie in a private folder as long as this lasts.

    Raises:
        CommandEnded: USAGE: nothing that can be read names a server so.
    """
    try:
        address = _address(named, access)
    except BundleUnreadable as error:
        raise _usage(error.message) from None
    with tempfile.TemporaryDirectory(prefix="overair-migrate-") as folder:
        ca = None
        if address.ca is not None:
            ca = Path(folder) / "ca.pem"
            ca.write_bytes(address.ca)
        certificate = None
        if address.client_p12 is not None:
            certificate = _client_certificate(address.client_p12, access.password, Path(folder))
        client = RestClient(address.proof, ca=ca, clock=clock, certificate=certificate)
        stranger = RestClient(None, ca=None, clock=clock)
        source = Source(client, stranger, image_url=address.image_url, gateway_url=address.gateway_url)
        source.pins = dict(address.roots)
        yield source


def _address(named: str, access: Access) -> _Address:
    if named.startswith(("https://", "http://")):
        return _of_url(https_url(named, named), access)
    path = Path(named)
    if path.is_dir():
        endpoints, key = read_endpoints(path), read_key(path)
        proof = SigV4Proof(key_id=key.access_key_id, secret=key.secret, region=endpoints.region)
        url = endpoints.operator_url
        return _Address(image_url=url, gateway_url=url, proof=proof, ca=Path(endpoints.ca_file).read_bytes())
    return _of_bundle(path, access)


def _of_url(url: str, access: Access) -> _Address:
    proof: Proof = None
    if access.client_id:
        if access.secret is None:
            raise _usage("--client-id goes with --client-secret-file.")
        proof = TokenProof(
            token_url=access.token_url or f"{url}/oauth2/token", client_id=access.client_id, secret=access.secret
        )
    return _Address(image_url=url, gateway_url=url, proof=proof, client_p12=access.client_p12, ca=access.ca)


def _of_bundle(path: Path, access: Access) -> _Address:
    entries = read_entries(path, _ENTRIES)
    if "tufrepo.url" not in entries:
        raise _usage(f"{path} doesn't say where the repository is: there is no tufrepo.url in it.")
    image_url = https_url(entries["tufrepo.url"], path).removesuffix(USER_REPO)
    gateway = entries.get("api_gateway.url")
    gateway_url = image_url if gateway is None else https_url(gateway, path)
    client_p12 = access.client_p12 or (Redacted(entries["client_auth.p12"]) if "client_auth.p12" in entries else None)
    proof = None if client_p12 is not None else _proof_of(oauth2_client(entries.get("treehub.json"), path))
    ca = access.ca or entries.get("server_ca.pem")
    if ca is None and "server.p12" in entries:
        ca = _authorities_of(entries["server.p12"], access.password)
    roots = {
        repository: entries[name]
        for repository, name in (("image", "root.json"), ("director", "director_root.json"))
        if name in entries
    }
    return _Address(image_url=image_url, gateway_url=gateway_url, proof=proof, client_p12=client_p12, ca=ca, roots=roots)


def _proof_of(client: OAuth2Client | None) -> Proof:
    if client is None:
        return None
    return TokenProof(token_url=client.token_url, client_id=client.client_id, secret=client.secret)


def _client_certificate(data: Redacted[bytes], password: Redacted[str] | None, folder: Path) -> ClientCertificate:
    container = _container(data.reveal(), password)
    if container.key is None or container.cert is None:
        raise _usage("The client's PKCS#12 holds no key with a certificate.")
    pem = container.cert.certificate.public_bytes(serialization.Encoding.PEM)
    pem += b"".join(each.certificate.public_bytes(serialization.Encoding.PEM) for each in container.additional_certs)
    (folder / "client.pem").write_bytes(pem)
    key = container.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(folder / "client.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return ClientCertificate(certificate=folder / "client.pem", key=folder / "client.key")


def _authorities_of(data: bytes, password: Redacted[str] | None) -> bytes:
    container = _container(data, password)
    found = [container.cert, *container.additional_certs]
    return b"".join(each.certificate.public_bytes(serialization.Encoding.PEM) for each in found if each is not None)


def _container(data: bytes, password: Redacted[str] | None) -> pkcs12.PKCS12KeyAndCertificates:
    for candidate in (None if password is None else password.reveal().encode("utf-8"), b"", None):
        try:
            return pkcs12.load_pkcs12(data, candidate)
        except ValueError:
            continue
    raise _usage("A PKCS#12 file doesn't open: give its password with --password-file.")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _usage(message: str) -> CommandEnded:
    return CommandEnded(ExitCode.USAGE, message)
