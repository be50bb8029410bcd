"""What a Primary tells of itself beside the manifest: once per start, and again where it changed. Nobody depends on it."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Mapping
from pathlib import Path

from overair.agent.uptane.gateway import Gateway
from overair.agent.uptane.state import InstalledTarget


class Telemetry:
    """Remembers what was told since the start."""

    def __init__(self, *, configuration: str) -> None:
        """``configuration``: the effective settings as TOML, without paths or secrets."""
        self._configuration = configuration
        self._told: dict[str, str] = {}

    def tell(self, gateway: Gateway, image: InstalledTarget | None) -> None:
        """Send what is new."""
        installed = [] if image is None else [{"name": image.name, "version": image.hashes.get("sha256", "")}]
        for method, path, body in (
            ("PUT", "/system_info", hardware()),
            ("PUT", "/core/installed", installed),
            ("PUT", "/system_info/network", network()),
            ("POST", "/system_info/config", self._configuration),
        ):
            text = body if isinstance(body, str) else json.dumps(body)
            if self._told.get(path) == text:
                continue
            self._told[path] = text
            content_type = "application/toml" if isinstance(body, str) else "application/json"
            gateway.tell(method, path, body, content_type=content_type)


def hardware() -> Mapping[str, object]:
    """The machine, in the shape in which aktualizr passes on what lshw says."""
    return {"id": socket.gethostname(), "class": "system", "product": platform.machine(), "description": platform.system()}


def network() -> Mapping[str, str]:
    """The first interface that is no loopback."""
    name, mac = _first_interface(Path("/sys/class/net"))
    return {"hostname": socket.gethostname(), "local_ipv4": _address(), "mac": mac, "interface": name}


def _first_interface(folder: Path) -> tuple[str, str]:
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name != "lo")
        return (names[0], (folder / names[0] / "address").read_text().strip()) if names else ("", "")
    except OSError:
        return "", ""


def _address() -> str:
    """The address that packets would leave from; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
