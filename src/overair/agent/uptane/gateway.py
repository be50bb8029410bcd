"""The calls that a Primary makes (Uptane reference §3), under the identity that works.

A new identity that waits to be used is tried first with the manifest; when that succeeds it replaces the old one, and when the
gateway takes the old one but not the new, the new one is dropped.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

from overair.agent.server_trust import PATH
from overair.agent.tls import tls_context
from overair.agent.uptane.https import Answer, BadStatus, HttpClient, NotProved, Stopped, TransportFailed
from overair.agent.uptane.identity import BadIdentity, Identity, IdentityStore, NoIdentity
from overair.agent.uptane.refresh import Fetch
from overair.wire.uptane.events import Event, events_body
from overair.wire.uptane.matching import VerifiedTarget
from overair.wire.uptane.metadata import Repository

LOG = logging.getLogger("overair.uptane")

MakeClient = Callable[[str, ssl.SSLContext, ssl.SSLContext], HttpClient]
"""(the gateway's address, TLS with the device's certificate, TLS without it for other hosts) → a client."""
_URL_SAFE: Final = "/-._~"
"""What stays as it is in an image's address (Uptane reference §3.6)."""


class Gateway:
    """One device's gateway."""

    def __init__(
        self,
        server: str,
        *,
        identities: IdentityStore,
        make_client: MakeClient,
        director: str | None = None,
        repository: str | None = None,
    ) -> None:
        self._server = server
        self._bases = {
            Repository.DIRECTOR: director or f"{server}/director",
            Repository.IMAGE: repository or f"{server}/repo",
        }
        self._identities = identities
        self._make_client = make_client
        self._client: HttpClient | None = None
        self.identity: Identity | None = None

    def close(self) -> None:
        """Drop the connections and whatever was shown on them."""
        if self._client is not None:
            self._client.close()
        self._client = None
        self.identity = None

    # --- calls ---

    def send_manifest(self, manifest: bytes) -> Answer:
        """``PUT /director/manifest``: the first call of each round, which also shows whether a new identity works.

        Raises:
            TransportFailed, NoIdentity
        """
        url = f"{self._bases[Repository.DIRECTOR]}/manifest"
        offered = self._identities.next()
        if offered is None:
            return self._current().request("PUT", url, body=manifest)
        present = self._identities.current()
        try:
            answer = self._use(offered).request("PUT", url, body=manifest)
            if answer.status not in (401, 403):
                self._identities.confirm_next()
                LOG.info("the new certificate works: it replaces the old one")
                self.close()
                return answer
            refused = f"status {answer.status}"
        except (NotProved, Stopped):
            raise
        except TransportFailed as error:
            if present is None:
                raise
            refused = str(error)
        if present is None:
            return answer
        answer = self._use(present).request("PUT", url, body=manifest)
        LOG.warning("the new certificate isn't taken (%s): the old one stays", refused)
        self._identities.drop_next()
        return answer

    def register(self, body: bytes) -> Answer:
        """``POST /director/ecus``. Raises: TransportFailed, NoIdentity."""
        return self._current().request("POST", f"{self._bases[Repository.DIRECTOR]}/ecus", body=body)

    def renew(self, request: bytes) -> Answer:
        """``POST /.well-known/est/simplereenroll`` with a PKCS #10 in Base64 (RFC 7030).

        Raises:
            TransportFailed, NoIdentity
        """
        url = f"{self._server}/.well-known/est/simplereenroll"
        headers = {"Content-Transfer-Encoding": "base64"}
        return self._current().request("POST", url, body=request, content_type="application/pkcs10", headers=headers)

    def authorities(self, tag: str) -> Answer:
        """Who vouches for the server, unless that is what ``tag`` names (``agent.server_trust``).

        Raises:
            TransportFailed, NoIdentity
        """
        headers = {"If-None-Match": tag} if tag else {}
        return self._current().request("GET", self._server + PATH, headers=headers)

    def send_events(self, events: Sequence[Event]) -> Answer:
        """``POST /events``. Raises: TransportFailed, NoIdentity."""
        return self._current().request("POST", f"{self._server}/events", body=events_body(events))

    def tell(self, method: str, path: str, body: object, *, content_type: str = "application/json") -> None:
        """Something that may be known about the device, and needn't be: what comes of it is only noted."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        try:
            answer = self._current().request(method, f"{self._server}{path}", body=data, content_type=content_type, attempts=1)
        except (TransportFailed, NoIdentity) as error:
            LOG.info("%s isn't told: %s", path, error)
            return
        if not answer.ok:
            LOG.info("%s isn't taken: status %s", path, answer.status)

    def fetch(self, repository: Repository) -> Fetch:
        """How documents of a repository are asked for."""
        base = self._bases[repository]

        def fetch(name: str, size_bytes_max: int) -> bytes | None:
            answer = self._current().request("GET", f"{base}/{name}", size_bytes_max=size_bytes_max)
            if answer.status == 200:
                return answer.body
            if answer.status != 404 and not name.endswith(".root.json"):
                raise BadStatus(answer.status, f"{base}/{name} answers with status {answer.status}.")
            if answer.status != 404:
                # A server whose keys are out of order hides its next root; the one that is trusted goes on holding.
                LOG.warning("%s/%s answers with status %s where 404 was to be expected", base, name, answer.status)
            return None

        return fetch

    def download(self, target: VerifiedTarget, *, first_byte: int, take: Callable[[int, bytes], None]) -> None:
        """An image from where its target says, else from the Image repository.

        Raises:
            TransportFailed, NoIdentity
        """
        url = target.uri or f"{self._bases[Repository.IMAGE]}/targets/{quote(target.name, safe=_URL_SAFE)}"
        self._current().download(url, first_byte=first_byte, size_bytes=target.length, take=take)

    # --- who we are ---

    def _current(self) -> HttpClient:
        if self._client is not None:
            return self._client
        identity = self._identities.current() or self._identities.next()
        if identity is None:
            raise NoIdentity("This device has no certificate yet.")
        return self._use(identity)

    def _use(self, identity: Identity) -> HttpClient:
        self.close()
        ca = self._identities.ca_file
        try:
            shown = tls_context(ca, certificate_file=identity.certificate_file, private_key_file=identity.private_key_file)
            self._client = self._make_client(self._server, shown, tls_context(ca))
        except OSError as error:
            raise BadIdentity(f"The identity in {identity.certificate_file.parent} can't be used: {error}") from None
        self.identity = identity
        return self._client
