"""Keeps a device's identity good while it runs: its certificate is renewed, and whom it trusts follows the server.

One round, some hours apart: try a new certificate that waits to be used; ask whom to trust, and store it; renew where it is
time (RFC 7030). The old pair stays until one call under the new one has succeeded, and an old authority until the server names
it no longer. A directory without ``identity/gateway.url`` is left alone; so is a CA file that isn't ``identity/ca.pem``: that
one is somebody else's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Final

from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.durable import Disk
from overair.agent.server_trust import PATH, ServerTrust
from overair.agent.tls import tls_context
from overair.agent.uptane.https import Answer, HttpClient, NotProved, TransportFailed
from overair.agent.uptane.identity import BadIdentity, Identity, IdentityStore
from overair.agent.uptane.renewal import Renewal
from overair.basics.clock import Clock

LOG = logging.getLogger("overair.agent.identity")

ROUND_EVERY_S: Final = 6 * 3600.0
FIRST_ROUND_AFTER_S_MAX: Final = 60.0
"""Devices that start together don't ask together."""
SPREAD_MAX: Final = 0.1
"""Of a certificate's life, after two thirds of it: devices that were made together don't renew together."""
_MANAGED: Final = "identity/ca.pem"

MakeClient = Callable[[Identity], HttpClient]
"""A client of the gateway that shows this identity."""


class IdentityKeeper:
    """Rounds on a thread of their own. ``changed`` is called on it when connections are to be made anew: they then show
    another certificate, or trust other authorities."""

    def __init__(
        self,
        directory: DeviceDirectory,
        settings: DeviceSettings,
        *,
        clock: Clock,
        chance: Random,
        changed: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
        disk: Disk | None = None,
        make_client: MakeClient | None = None,
        round_every_s: float = ROUND_EVERY_S,
        first_round_after_s_max: float = FIRST_ROUND_AFTER_S_MAX,
    ) -> None:
        self._disk = disk or Disk()
        self._identities = IdentityStore(directory, self._disk)
        self._manages_trust = settings.ca_file == _MANAGED
        self._ca_file = directory.ca_file(settings)
        self._trust = ServerTrust(self._ca_file, self._disk, lambda tag: self._ask_authorities(self._present(), tag=tag))
        self._clock = clock
        self._chance = chance
        self._changed = changed
        self._monotonic = monotonic
        self._make_client = make_client or self._new_client
        self._round_every_s = round_every_s
        self._first_round_after_s_max = first_round_after_s_max
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewal = Renewal(self._identities, self, monotonic=monotonic, spread=chance.random() * SPREAD_MAX)

    def recover(self) -> None:
        """Finish a replacement that a power cut has parted: the new pair had proved itself by then."""
        if self._identities.current() is None and self._identities.next() is not None:
            self._identities.confirm_next()

    def start(self) -> None:
        """Begin, unless nobody has said where to ask."""
        if self._identities.gateway:
            self._thread = threading.Thread(target=self._run, name="identity", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """No further round. One under way isn't waited for: it may be in the midst of a slow answer."""
        self._stopping.set()

    def round(self) -> bool:
        """One round; whether connections are to be made anew. What fails is told in the log: it is tried at the next one."""
        try:
            is_new = self._try_next()
            is_new = self._refresh_trust() or is_new
            if self._renewal.run_if_due(self._clock.now()):
                is_new = self._try_next() or is_new
        except (TransportFailed, BadIdentity, OSError) as error:
            LOG.warning("the device's identity isn't looked after: %s", error)
            return False
        if is_new:
            self._changed()
        return is_new

    # ``uptane.renewal.Asks``

    def renew(self, request: bytes) -> Answer:
        """``POST /.well-known/est/simplereenroll`` under the present certificate, with a PKCS #10 in Base64.

        Raises:
            TransportFailed
        """
        client = self._make_client(self._present())
        try:
            return client.request(
                "POST",
                f"{self._gateway}/.well-known/est/simplereenroll",
                body=request,
                content_type="application/pkcs10",
                headers={"Content-Transfer-Encoding": "base64"},
            )
        finally:
            client.close()

    # ----------------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = self._chance.random() * self._first_round_after_s_max
        while not self._stopping.wait(wait_s):
            self.round()
            wait_s = self._round_every_s * (0.75 + self._chance.random() / 2)

    def _try_next(self) -> bool:
        """Use the certificate that waits for it; it is the present one once a call has succeeded under it."""
        offered = self._identities.next()
        if offered is None:
            return False
        try:
            answer = self._ask_authorities(offered, tag="")
            refused = f"status {answer.status}" if answer.status in (401, 403) else ""
        except NotProved:
            raise
        except TransportFailed as error:
            # Nothing tells a refused certificate from a server that is away, but the present one's fate: ask under that.
            refused = str(error)
        if not refused:
            self._identities.confirm_next()
            LOG.info("the new certificate works: it replaces the old one")
            return True
        if self._ask_authorities(self._present(), tag="").status not in (401, 403):
            LOG.warning("the new certificate isn't taken (%s): the old one stays", refused)
            self._identities.drop_next()
        return False

    def _refresh_trust(self) -> bool:
        return self._manages_trust and self._trust.refresh()

    def _ask_authorities(self, identity: Identity, *, tag: str) -> Answer:
        client = self._make_client(identity)
        try:
            headers = {"If-None-Match": tag} if tag else {}
            return client.request("GET", self._gateway + PATH, headers=headers)
        finally:
            client.close()

    def _present(self) -> Identity:
        found = self._identities.current()
        if found is None:
            raise BadIdentity("This device has no certificate that can be used.")
        return found

    @property
    def _gateway(self) -> str:
        return (self._identities.gateway or "").rstrip("/")

    def _new_client(self, identity: Identity) -> HttpClient:
        context = tls_context(
            self._ca_file, certificate_file=identity.certificate_file, private_key_file=identity.private_key_file
        )
        return HttpClient(
            gateway=self._gateway,
            context=context,
            foreign_context=None,
            pause=self._stopping.wait,
            chance=self._chance,
            monotonic=self._monotonic,
        )
