"""The member ``uptane`` of ``device.json``: where the gateway is, how the device gets in, which ECUs it speaks for.

::

    {"server": "https://gateway.example:8443",      left out: what the shared credential says
     "director": URL, "repository": URL,            left out: SERVER/director and SERVER/repo
     "credentials": "credentials.zip",              a shared provisioning credential: asked for an identity once, then emptied
     "import": {"certificate": F, "private_key": F, "ca": F},   own PKI: read at each start, taken over where they changed
     "roots": "roots",                              holds director/root.json and repo/root.json, the first trusted roots
     "renewal": true,                               ask for a new certificate at 2/3 of its life; left out: not with "import"
     "polling_s": 60, "key_type": "ED25519",        of the ECU key: ED25519, RSA2048, RSA3072 or RSA4096
     "ecu_serial": "…",                             left out: the key's id
     "install": {…},                                how the Primary's own image is installed; left out: into a slot
     "secondaries": [{"socket": F},
                     {"virtual": NAME, "hardware_id": H, "ecu_serial": S, "verification": "full", "install": {…}}]}

    install: {"slot": true} | {"file": PATH} | {"command": [ARGV…], "check": [ARGV…], "timeout_s": 600}

File names are relative to the device's directory, or absolute. ``file`` is a path below ``files/``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar, cast
from urllib.parse import urlsplit

POLLING_S: Final = 60.0
POLLING_S_MAX: Final = 86_400
COMMAND_TIMEOUT_S: Final = 600.0
SECONDARIES_MAX: Final = 64
ECU_SERIAL: Final = re.compile(r"[!-~]{1,64}")
HARDWARE_ID: Final = re.compile(r"[ -~]{1,200}")
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE: Final = re.compile(r"[^\x00]{1,4096}")
_E = TypeVar("_E", bound=StrEnum)


class BadUptaneSettings(ValueError):
    """The member breaks a rule; the message says which."""


class KeyKind(StrEnum):
    """Of an ECU key."""

    ED25519 = "ED25519"
    RSA2048 = "RSA2048"
    RSA3072 = "RSA3072"
    RSA4096 = "RSA4096"


class Verification(StrEnum):
    """How much a Secondary checks by itself (Uptane Standard 5.4.4)."""

    FULL = "full"
    """Both repositories, as the Primary."""
    PARTIAL = "partial"
    """The Director's targets under the Director's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInstall:
    """Into the other slot, on trial, through the boot loader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInstall:
    """The image becomes a file below ``files/``."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandInstall:
    """A program of the integrator's installs it. Exit status 0: done; 75: done after the machine has restarted."""

    argv: tuple[str, ...]
    check_argv: tuple[str, ...] = ()
    """Run after that restart: exit status 0 means that the image runs."""
    timeout_s: float = COMMAND_TIMEOUT_S


Install = SlotInstall | FileInstall | CommandInstall


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSecondary:
    """A Secondary that is a process of its own, reached over a Unix-domain socket."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualSecondary:
    """A Secondary inside the Primary's process, with a key of its own and its own eyes on the metadata."""

    name: str
    """Of its folder ``uptane/secondaries/NAME``."""
    hardware_id: str
    ecu_serial: str | None = None
    verification: Verification = Verification.FULL
    install: FileInstall | CommandInstall


SecondarySettings = SocketSecondary | VirtualSecondary


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedFiles:
    """An identity from the operator's own PKI."""

    certificate: str
    private_key: str
    ca: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UptaneSettings:
    """The whole member."""

    server: str | None = None
    director: str | None = None
    repository: str | None = None
    credentials: str | None = None
    imported: ImportedFiles | None = None
    roots: str | None = None
    renewal: bool | None = None
    polling_s: float = POLLING_S
    key_type: KeyKind = KeyKind.ED25519
    ecu_serial: str | None = None
    install: Install = field(default_factory=SlotInstall)
    secondaries: tuple[SecondarySettings, ...] = ()

    @property
    def renews(self) -> bool:
        """Own PKI renews by files; a certificate from the server's issuer by asking for another."""
        return self.imported is None if self.renewal is None else self.renewal

    def to_json(self) -> dict[str, object]:
        """The member as ``parse_uptane`` reads it."""
        members: dict[str, object] = {
            "server": self.server,
            "director": self.director,
            "repository": self.repository,
            "credentials": self.credentials,
            "roots": self.roots,
            "renewal": self.renewal,
            "ecu_serial": self.ecu_serial,
        }
        members = {name: value for name, value in members.items() if value is not None}
        if self.imported is not None:
            files = self.imported
            members["import"] = {"certificate": files.certificate, "private_key": files.private_key, "ca": files.ca}
        if self.secondaries:
            members["secondaries"] = [_secondary_members(each) for each in self.secondaries]
        return members | {
            "polling_s": self.polling_s,
            "key_type": self.key_type.value,
            "install": install_members(self.install),
        }


def parse_uptane(value: object) -> UptaneSettings:
    """Read the member; nothing may be in it that isn't known.

    Raises:
        BadUptaneSettings
    """
    members = _object(value, "uptane")
    known = {"server", "director", "repository", "credentials", "import", "roots", "renewal", "polling_s", "key_type"}
    refuse_unknown(members, known | {"ecu_serial", "install", "secondaries"}, "uptane")
    secondaries = _array(members.get("secondaries", []), "uptane.secondaries")
    if len(secondaries) > SECONDARIES_MAX:
        raise BadUptaneSettings(f"uptane.secondaries: at most {SECONDARIES_MAX}.")
    parsed = tuple(_secondary(each, f"uptane.secondaries[{number}]") for number, each in enumerate(secondaries))
    names = [each.name if isinstance(each, VirtualSecondary) else each.path for each in parsed]
    if len(set(names)) != len(names):
        raise BadUptaneSettings("uptane.secondaries: two have one name or one socket.")
    renewal = members.get("renewal")
    if renewal is not None and not isinstance(renewal, bool):
        raise BadUptaneSettings("uptane.renewal is true or false.")
    return UptaneSettings(
        server=_url(members, "server"),
        director=_url(members, "director"),
        repository=_url(members, "repository"),
        credentials=text_at(members, "credentials", _FILE),
        imported=_imported(members.get("import")),
        roots=text_at(members, "roots", _FILE),
        renewal=renewal,
        polling_s=_number(members, "polling_s", 1, POLLING_S_MAX, POLLING_S),
        key_type=choice_at(members.get("key_type", KeyKind.ED25519.value), KeyKind, "uptane.key_type"),
        ecu_serial=text_at(members, "ecu_serial", ECU_SERIAL),
        install=parse_install(members.get("install", {"slot": True}), "uptane.install"),
        secondaries=parsed,
    )


def parse_install(value: object, path: str) -> Install:
    """One of the three ways.

    Raises:
        BadUptaneSettings
    """
    members = _object(value, path)
    kinds = members.keys() & {"slot", "file", "command"}
    if len(kinds) != 1:
        raise BadUptaneSettings(f"{path} has exactly one of slot, file and command.")
    if "slot" in members:
        refuse_unknown(members, {"slot"}, path)
        if members["slot"] is not True:
            raise BadUptaneSettings(f"{path}.slot is true or left out.")
        return SlotInstall()
    if "file" in members:
        refuse_unknown(members, {"file"}, path)
        place = members["file"]
        if not isinstance(place, str) or not _FILE.fullmatch(place) or place.startswith("/") or ".." in place.split("/"):
            raise BadUptaneSettings(f"{path}.file is a path below files/.")
        return FileInstall(path=place)
    refuse_unknown(members, {"command", "check", "timeout_s"}, path)
    argv = _argv(members["command"], f"{path}.command")
    if not argv:
        raise BadUptaneSettings(f"{path}.command names a program and its arguments.")
    return CommandInstall(
        argv=argv,
        check_argv=_argv(members.get("check", []), f"{path}.check"),
        timeout_s=_number(members, "timeout_s", 1, POLLING_S_MAX, COMMAND_TIMEOUT_S),
    )


def install_members(install: Install) -> dict[str, object]:
    """The member as ``parse_install`` reads it."""
    match install:
        case SlotInstall():
            return {"slot": True}
        case FileInstall():
            return {"file": install.path}
        case CommandInstall():
            return {"command": list(install.argv), "check": list(install.check_argv), "timeout_s": install.timeout_s}


def _secondary(value: object, path: str) -> SecondarySettings:
    members = _object(value, path)
    if "socket" in members:
        refuse_unknown(members, {"socket"}, path)
        return SocketSecondary(path=_required(members, "socket", _FILE, path))
    refuse_unknown(members, {"virtual", "hardware_id", "ecu_serial", "verification", "install"}, path)
    name = _required(members, "virtual", _FOLDER, path)
    install = parse_install(members.get("install", {"file": f"{name}.bin"}), f"{path}.install")
    if isinstance(install, SlotInstall):
        raise BadUptaneSettings(f"{path}.install: only the Primary has slots.")
    return VirtualSecondary(
        name=name,
        hardware_id=_required(members, "hardware_id", HARDWARE_ID, path),
        ecu_serial=text_at(members, "ecu_serial", ECU_SERIAL, path),
        verification=choice_at(members.get("verification", "full"), Verification, f"{path}.verification"),
        install=install,
    )


def _secondary_members(secondary: SecondarySettings) -> dict[str, object]:
    if isinstance(secondary, SocketSecondary):
        return {"socket": secondary.path}
    members: dict[str, object] = {
        "virtual": secondary.name,
        "hardware_id": secondary.hardware_id,
        "verification": secondary.verification.value,
        "install": install_members(secondary.install),
    }
    return members if secondary.ecu_serial is None else members | {"ecu_serial": secondary.ecu_serial}


def _imported(value: object) -> ImportedFiles | None:
    if value is None:
        return None
    members = _object(value, "uptane.import")
    refuse_unknown(members, {"certificate", "private_key", "ca"}, "uptane.import")
    return ImportedFiles(
        certificate=_required(members, "certificate", _FILE, "uptane.import"),
        private_key=_required(members, "private_key", _FILE, "uptane.import"),
        ca=_required(members, "ca", _FILE, "uptane.import"),
    )


def _object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise BadUptaneSettings(f"{path} must be an object.")
    return cast("Mapping[str, object]", value)


def _array(value: object, path: str) -> list[object]:
    if not isinstance(value, list):
        raise BadUptaneSettings(f"{path} must be an array.")
    return value


def _argv(value: object, path: str) -> tuple[str, ...]:
    items = _array(value, path)
    if not all(isinstance(item, str) and _FILE.fullmatch(item) for item in items):
        raise BadUptaneSettings(f"{path} must be an array of texts.")
    return tuple(cast("list[str]", items))


def refuse_unknown(members: Mapping[str, object], known: set[str], path: str) -> None:
    """Nothing may be there that isn't known.

    Raises:
        BadUptaneSettings
    """
    unknown = sorted(members.keys() - known)
    if unknown:
        raise BadUptaneSettings(f"{path} has the unknown member {unknown[0][:60]!r}.")


def text_at(members: Mapping[str, object], name: str, pattern: re.Pattern[str], path: str = "uptane") -> str | None:
    """A text that may be left out.

    Raises:
        BadUptaneSettings
    """
    return None if members.get(name) is None else _required(members, name, pattern, path)


def _required(members: Mapping[str, object], name: str, pattern: re.Pattern[str], path: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadUptaneSettings(f"{path}.{name} must be text that matches {pattern.pattern}.")
    return value


def _url(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    try:
        fits = isinstance(value, str) and urlsplit(value).scheme == "https" and bool(urlsplit(value).hostname)
    except ValueError:
        fits = False
    if not fits:
        raise BadUptaneSettings(f"uptane.{name} must be an https address.")
    return str(value).rstrip("/")


def _number(members: Mapping[str, object], name: str, minimum: float, maximum: float, default: float) -> float:
    value = members.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
        raise BadUptaneSettings(f"uptane: {name} must be a number from {minimum:g} to {maximum:g}.")
    return float(value)


def choice_at(value: object, kind: type[_E], path: str) -> _E:
    """One of the kind's words.

    Raises:
        BadUptaneSettings
    """
    try:
        return kind(str(value))
    except ValueError:
        raise BadUptaneSettings(f"{path} is one of {', '.join(kind)}.") from None
