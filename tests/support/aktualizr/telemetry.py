"""What a device tells of itself once in a process, and again only when it has changed (Uptane reference §3.5)."""

from __future__ import annotations

import hashlib

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.configuration import Configuration
from tests.support.aktualizr.curl import Http
from tests.support.aktualizr.storage import Storage

HARDWARE: dict[str, object] = {
    "id": "device",
    "class": "system",
    "claimed": True,
    "description": "Computer",
    "width": 64,
    "children": [{"id": "core", "class": "bus", "description": "Motherboard"}],
}
"""As ``lshw -json`` has it, in short."""
NETWORK: dict[str, object] = {"local_ipv4": "192.0.2.7", "mac": "02:00:00:00:00:07", "hostname": "device"}
INSTALLED_PACKAGES = [{"name": "fake-package", "version": "1.0"}]
"""What the package manager ``none`` always says."""


class Telemetry:
    def __init__(self, configuration: Configuration, storage: Storage) -> None:
        self._configuration, self._hashes = configuration, storage.reported_hashes

    def send_all(self, curl: Http) -> None:
        self._put(curl, "hardware_info", "/system_info", HARDWARE)
        self._put(curl, "installed_packages", "/core/installed", INSTALLED_PACKAGES)
        self.send_network(curl)
        text = self._effective_configuration().encode()
        digest = hashlib.sha256(text).hexdigest()
        if self._hashes.get("configuration") != digest:
            url = f"{self._configuration.server_url}/system_info/config"
            if curl.post(url, text, content_type="application/toml").is_ok:
                self._hashes["configuration"] = digest

    def send_network(self, curl: Http) -> None:
        self._put(curl, "network_info", "/system_info/network", NETWORK)

    def _put(self, curl: Http, kind: str, path: str, value: object) -> None:
        body = jsoncpp.bytes_of(value)
        digest = hashlib.sha256(body).hexdigest()
        if self._hashes.get(kind) == digest:
            return
        if curl.put(f"{self._configuration.server_url}{path}", body).is_ok:
            self._hashes[kind] = digest

    def _effective_configuration(self) -> str:
        server, of = self._configuration.server_url, self._configuration
        return (
            "[logger]\nloglevel = 2\n\n[tls]\n"
            f'server = "{server}"\nca_source = "file"\npkey_source = "file"\ncert_source = "file"\n\n'
            f'[provision]\nserver = "{server}"\np12_password = ""\nexpiry_days = "{of.expiry_days}"\n'
            f'primary_ecu_hardware_id = "{of.hardware_id}"\n\n'
            f'[uptane]\npolling_sec = 10\nkey_type = "{of.key_type}"\n\n[pacman]\ntype = "none"\n'
        )
