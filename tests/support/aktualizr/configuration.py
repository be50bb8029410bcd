"""What stands in ``sota.toml``, as far as a server notices it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.aktualizr.credentials import OwnPki, SharedCredentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    server_url: str
    """``tls.server``."""
    credentials: SharedCredentials | OwnPki
    hardware_id: str
    device_id: str = ""
    primary_serial: str = ""
    key_type: str = "RSA2048"
    expiry_days: str = "36000"
    """A string: it is sent as one."""
    retry_pause_s: float = 0.01
    """aktualizr waits for a second; a test needn't."""
