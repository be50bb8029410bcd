"""From no certificate to registered ECUs (Uptane reference §3.2, §3.3, §3.4)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.credentials import Malformed, OwnPki, SharedCredentials, common_name_of, read_p12
from tests.support.aktualizr.curl import Call, Curl, Http, Response, TlsCredentials
from tests.support.aktualizr.keys import EcuKey
from tests.support.aktualizr.secondary import VirtualSecondary
from tests.support.aktualizr.storage import Storage


@dataclass(frozen=True, slots=True)
class Refusal:
    """A provisioning call that was refused."""

    status: int
    code: str
    body: bytes = b""
    error: str = ""
    """Of the transport."""


class Provisioner:
    """Who the device is, and the calls that make it known."""

    def __init__(
        self,
        configuration: Configuration,
        storage: Storage,
        secondaries: Mapping[str, VirtualSecondary],
        calls: list[Call],
        connect: Callable[[TlsCredentials], Http] | None = None,
    ) -> None:
        self._configuration, self._storage, self._secondaries, self._calls = configuration, storage, secondaries, calls
        self.refusal: Refusal | None = None
        self.malformed: Malformed | None = None
        self.curl: Http | None = None
        """Once the device is provisioned."""
        self._connect = connect or self._connect_with_curl
        if isinstance(configuration.credentials, OwnPki):
            # At every start: a certificate file that has changed replaces the stored one.
            storage.tls = configuration.credentials.tls()
        self.key = self._primary_key()

    @property
    def serial(self) -> str:
        """The Primary's: configured, or its key's id."""
        return self._configuration.primary_serial or self.key.public.key_id

    @property
    def device_id(self) -> str:
        """Stored, configured, the certificate's, or made up."""
        if not self._storage.device_id:
            name = self._configuration.device_id
            if not name and self._storage.tls is not None:
                name = common_name_of(self._storage.tls.certificate_chain)
            self._storage.device_id = name or f"deft-otter-{uuid.uuid4().int % 10**6}"
        return self._storage.device_id

    def hardware_id_of(self, serial: str) -> str | None:
        if serial == self.serial:
            return self._configuration.hardware_id
        secondary = self._secondaries.get(serial)
        return None if secondary is None else secondary.hardware_id

    def attempt(self) -> bool:
        """What is missing is got, in order: a certificate, then the registration of ECUs."""
        if self.curl is not None:
            return True
        self.refusal = None
        if self._storage.tls is None and not self._provision_with_shared_credentials():
            return False
        assert self._storage.tls is not None
        curl = self._connect(self._storage.tls)
        if not self._register_ecus(curl):
            return False
        self.curl = curl
        return True

    def _primary_key(self) -> EcuKey:
        if self._storage.primary_key is None:
            self._storage.primary_key = EcuKey.generate(self._configuration.key_type)
        return self._storage.primary_key

    def _connect_with_curl(self, tls: TlsCredentials) -> Http:
        return Curl(tls, retry_pause_s=self._configuration.retry_pause_s, calls=self._calls)

    def _provision_with_shared_credentials(self) -> bool:
        credentials = self._configuration.credentials
        assert isinstance(credentials, SharedCredentials)
        bootstrap = self._connect(credentials.tls())
        body = {"deviceId": self.device_id, "ttl": self._configuration.expiry_days}
        response = bootstrap.post(f"{self._configuration.server_url}/devices", jsoncpp.bytes_of(body))
        if not response.is_ok:
            self.refusal = _refusal_of(response)
            if self.refusal.code == "device_already_registered":
                # A new random name next time, unless one is configured.
                self._storage.device_id = ""
            return False
        try:
            self._storage.tls = read_p12(response.body)
        except Malformed as error:
            self.malformed = error
            return False
        credentials.strip()
        return True

    def _register_ecus(self, curl: Http) -> bool:
        """The whole list again whenever an ECU is new, changed or gone."""
        hardware_id = self._configuration.hardware_id
        wanted = [(self.serial, hardware_id), *((each.serial, each.hardware_id) for each in self._secondaries.values())]
        if self._storage.ecus and set(self._storage.ecus) == set(wanted):
            return True
        ecus = [{"hardware_identifier": hardware_id, "ecu_serial": self.serial, "clientKey": self.key.public.to_uptane()}]
        ecus += [
            {"hardware_identifier": each.hardware_id, "ecu_serial": each.serial, "clientKey": each.public_key.to_uptane()}
            for each in self._secondaries.values()
        ]
        body = {"primary_ecu_serial": self.serial, "ecus": ecus}
        response = curl.post(f"{self._configuration.server_url}/director/ecus", jsoncpp.bytes_of(body))
        if not response.is_ok:
            self.refusal = _refusal_of(response)
            return False
        self._storage.ecus = wanted
        return True


def _refusal_of(response: Response) -> Refusal:
    try:
        code = jsoncpp.parse(response.body)["code"]
    except (ValueError, KeyError, TypeError):
        code = ""
    return Refusal(response.status, code if isinstance(code, str) else "", response.body, response.error)
