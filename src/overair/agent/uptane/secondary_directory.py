"""The folder of a Secondary that is a process of its own, and its ``secondary.json``::

    {"format": 1, "hardware_id": "dash-s32", "ecu_serial": "…", "verification": "full" | "partial",
     "socket": "secondary.sock", "key_type": "ED25519", "install": {"file": PATH} | {"command": [ARGV…], "timeout_s": 600}}

``ecu_serial`` may be left out (the key's id), and so may the last three. ``socket`` is relative to the folder or absolute. What
else lies there says ``secondary.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.agent.durable import Disk
from overair.agent.uptane.secondary import Secondary, SecondarySettings
from overair.agent.uptane.settings import (
    ECU_SERIAL,
    HARDWARE_ID,
    BadUptaneSettings,
    KeyKind,
    SlotInstall,
    Verification,
    choice_at,
    install_members,
    parse_install,
    refuse_unknown,
    text_at,
)
from overair.basics.clock import Clock
from overair.wire import strict_json

FORMAT: Final = 1
SETTINGS_SIZE_BYTES_MAX: Final = 64 * 1024
SETTINGS_FILE: Final = "secondary.json"
SOCKET: Final = "secondary.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneSecondary:
    """``secondary.json``."""

    secondary: SecondarySettings
    socket: str = SOCKET

    def to_json(self) -> dict[str, object]:
        secondary = self.secondary
        members: dict[str, object] = {
            "format": FORMAT,
            "hardware_id": secondary.hardware_id,
            "verification": secondary.verification.value,
            "socket": self.socket,
            "key_type": secondary.key_type.value,
            "install": install_members(secondary.install),
        }
        return members if secondary.ecu_serial is None else members | {"ecu_serial": secondary.ecu_serial}


def read_settings(folder: Path) -> StandaloneSecondary:
    """Read ``secondary.json``.

    Raises:
        BadUptaneSettings: it isn't there, or breaks a rule.
    """
    path = folder / SETTINGS_FILE
    try:
        with path.open("rb") as file:
            data = file.read(SETTINGS_SIZE_BYTES_MAX + 1)
        members = strict_json.decode_object(data, size_bytes_max=SETTINGS_SIZE_BYTES_MAX, depth_max=4)
    except OSError as error:
        raise BadUptaneSettings(
            f"{path} can't be read ({error.strerror}). "
            "Make a Secondary with: overair-device uptane secondary run DIR --hardware-id …"
        ) from None
    except strict_json.MalformedJson as error:
        raise BadUptaneSettings(f"{path}: {error}") from None
    return _parsed(members)


def write_settings(folder: Path, settings: StandaloneSecondary) -> None:
    """Lay out a new Secondary.

    Raises:
        BadUptaneSettings: a setting breaks a rule.
    """
    _parsed(settings.to_json())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    Disk().write_whole(folder / SETTINGS_FILE, (json.dumps(settings.to_json(), indent=2) + "\n").encode())


def open_secondary(
    folder: Path, settings: StandaloneSecondary, *, clock: Clock, monotonic: Callable[[], float], disk: Disk | None = None
) -> Secondary:
    """The ECU itself."""
    return Secondary(folder, settings.secondary, disk=disk or Disk(), clock=clock, monotonic=monotonic)


def _parsed(members: dict[str, object]) -> StandaloneSecondary:
    path = SETTINGS_FILE
    if members.get("format") != FORMAT:
        raise BadUptaneSettings(f"{path} has format {members.get('format')!r}; this program reads format {FORMAT}.")
    known = {"format", "hardware_id", "ecu_serial", "verification", "socket", "key_type", "install"}
    refuse_unknown(members, known, path)
    install = parse_install(members.get("install", {"file": "firmware.bin"}), f"{path}: install")
    if isinstance(install, SlotInstall):
        raise BadUptaneSettings(f"{path}: only a Primary has slots.")
    socket = members.get("socket", SOCKET)
    if not isinstance(socket, str) or not socket or "\x00" in socket:
        raise BadUptaneSettings(f"{path}: socket is the name of a file.")
    hardware_id = text_at(members, "hardware_id", HARDWARE_ID, path)
    if hardware_id is None:
        raise BadUptaneSettings(f"{path}: hardware_id is missing.")
    return StandaloneSecondary(
        secondary=SecondarySettings(
            hardware_id=hardware_id,
            ecu_serial=text_at(members, "ecu_serial", ECU_SERIAL, path),
            verification=choice_at(members.get("verification", "full"), Verification, f"{path}: verification"),
            install=install,
            key_type=choice_at(members.get("key_type", KeyKind.ED25519.value), KeyKind, f"{path}: key_type"),
        ),
        socket=socket,
    )
