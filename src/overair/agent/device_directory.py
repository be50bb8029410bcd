"""What a device of the posix platform keeps on its disk, and where.

::

    DIR/
      device.json               who this device is and whom it asks (below); mode 0600
      identity/                 0700
        certificate.pem         the device certificate, with its chain if it has one
        private.key             PEM, unencrypted; 0600
        ca.pem                  who the server's certificate must come from
      trust/
        NAME.pem                a signer's certificate; a job's ``certfile`` selects one by its last path segment
      decryption/               0700; there once the device has keys that images are encrypted to
        NAME.key                its own (``device``), or that of a group; 0600
      slots/                    0700; the platform's own
        state.json              which slot is active, what each holds, whether an image is on trial
        a.zip, b.zip            the two images
        receiving.*             a download under way: bytes, bitmap of blocks on the disk, what it is, how far it is decrypted
        report.json             a final status that the server hasn't acknowledged yet
      files/                    what was shipped with ``--as PATH``; nothing is stored outside
      configuration.json        what the template had to tell a device that came in by a claim
      run/                      not needed after a restart
        progress.json           what the agent is doing, replaced at each step
        boot.lock               held by the boot loader
        boot.json               {"pid", "image_pid", "slot"} while the boot loader runs

``device.json`` is one JSON object::

    {"format": 1, "thing_name": "dev-1", "hardware_id": "posix-1",
     "mqtt_host": "127.0.0.1", "mqtt_port": 8883, "ca_file": "identity/ca.pem",
     "block_size_bytes": 4096, "slot_size_bytes_max": 67108864, "self_test_timeout_s": 30}

``ca_file`` is relative to DIR or absolute. The last three may be left out, and so may these, which say how the agent gets its
files and how long it waits: ``"primary_protocol"`` ("MQTT" or "HTTP"), ``"stream_format"`` ("cbor" or "json"),
``"images_ca_file"`` (trusted beside ``ca_file`` where a job's URL leads elsewhere),
``"request_timeout_s"`` (10), ``"self_test_response_timeout_s"`` (16); ``"serial_port"`` names a terminal that gets a line for
each step, at ``"serial_baud"`` (115200). With ``hooks`` (``agent/hooks.py`` says what is in it) the device is a gateway without
slots, run by ``overair-device run``. With a member ``uptane`` the device is a Uptane Primary
(``agent/uptane/settings.py`` says what is in it): the broker's name and port may be left out, and ``thing_name`` too,
which then is the common name of the certificate that the device is given. Nothing else may be added. It has besides::

      uptane/                   0700
        ecu.key                 the Primary's ECU key; 0600
        state.json              what is registered, installed, under way and not yet reported; the time floor
        director.trusted        what is trusted of each repository, replaced whole
        image.trusted
        device-id               the id that was chosen where none was configured
        images/                 images on their way in, and those that wait for their ECUs
        secondaries/NAME/       a virtual Secondary's key, state and trusted metadata
      identity/next.pem         a new certificate that has yet to be used; identity/gateway.url: where the gateway is

``identity`` holds on any device, where they are needed: ``gateway.url``, where it renews its certificate and asks whom to
trust; ``next.pem``, as above; ``pending.pem``, a request that an authority elsewhere has yet to answer, with its key; and
``server-authorities.pem``, whom the server named last, all of which stand in ``ca.pem`` too.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from overair.agent.durable import Disk
from overair.agent.hooks import BadHooks, HookSettings, parse_hooks
from overair.agent.uptane.settings import BadUptaneSettings, UptaneSettings, parse_uptane
from overair.wire import strict_json
from overair.wire.blocks import BLOCK_SIZE_BYTES_MAX, BLOCK_SIZE_BYTES_MIN
from overair.wire.job_document import TransferProtocol
from overair.wire.stream_messages import Dialect

FORMAT: Final = 1
DEVICE_FILE_SIZE_BYTES_MAX: Final = 64 * 1024
BLOCK_SIZE_BYTES: Final = 4096
SLOT_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
SELF_TEST_TIMEOUT_S: Final = 30
REQUEST_TIMEOUT_S: Final = 10
SELF_TEST_RESPONSE_TIMEOUT_S: Final = 16
SERIAL_BAUD: Final = 115_200
_HOST: Final = re.compile(r"[^\s/]{1,253}")
_THING_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_HARDWARE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_ANCHOR_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


_LATER_MEMBERS: Final[dict[str, object]] = {
    "images_ca_file": "",
    "primary_protocol": TransferProtocol.MQTT,
    "stream_format": Dialect.CBOR,
    "request_timeout_s": REQUEST_TIMEOUT_S,
    "self_test_response_timeout_s": SELF_TEST_RESPONSE_TIMEOUT_S,
    "serial_port": "",
    "serial_baud": SERIAL_BAUD,
    "hooks": None,
}
"""Members that images of an earlier library refuse: written only where they differ from what those images do anyway."""


class BadDeviceDirectory(Exception):
    """The directory isn't a device's, or what it holds can't be used; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """``device.json``: who this device is and whom it asks."""

    thing_name: str = ""
    """Empty: a Uptane device that takes its name from its certificate."""
    hardware_id: str
    mqtt_host: str = ""
    """Empty: a Uptane device, which has no broker."""
    mqtt_port: int = 0
    ca_file: str = "identity/ca.pem"
    images_ca_file: str = ""
    """Authorities of other servers that images may come from by URL, beside ``ca_file``'s; empty: of none."""
    block_size_bytes: int = BLOCK_SIZE_BYTES
    """Of the blocks it asks for; larger ones are used for files that need them."""
    slot_size_bytes_max: int = SLOT_SIZE_BYTES_MAX
    self_test_timeout_s: int = SELF_TEST_TIMEOUT_S
    """An image on trial that hasn't accepted itself by then is ended, and the previous one runs again."""
    primary_protocol: TransferProtocol = TransferProtocol.MQTT
    """Which way files come where a job offers both."""
    stream_format: Dialect = Dialect.CBOR
    """How blocks are asked for and sent over MQTT."""
    request_timeout_s: int = REQUEST_TIMEOUT_S
    """After that long without an answer a request is made again."""
    self_test_response_timeout_s: int = SELF_TEST_RESPONSE_TIMEOUT_S
    """From the start of an image on trial until the server's word on its self-test; without it the image goes back."""
    serial_port: str = ""
    """A terminal that gets one line for each step; empty: none does."""
    serial_baud: int = SERIAL_BAUD
    hooks: HookSettings | None = None
    """Set: this device is a gateway without slots, and these are the programs that install its images."""
    uptane: UptaneSettings | None = None
    """Set: this device is a Uptane Primary."""


@dataclass(frozen=True, slots=True)
class DeviceDirectory:
    """The paths of one device."""

    root: Path

    @property
    def device_file(self) -> Path:
        return self.root / "device.json"

    @property
    def certificate_file(self) -> Path:
        return self.root / "identity" / "certificate.pem"

    @property
    def private_key_file(self) -> Path:
        return self.root / "identity" / "private.key"

    @property
    def gateway_file(self) -> Path:
        """Where the device renews its certificate and asks whom to trust."""
        return self.root / "identity" / "gateway.url"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def decryption(self) -> Path:
        return self.root / "decryption"

    @property
    def slots(self) -> Path:
        return self.root / "slots"

    @property
    def uptane(self) -> Path:
        return self.root / "uptane"

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def slot_file(self, slot: str) -> Path:
        """The image in slot ``a`` or ``b``."""
        return self.slots / f"{slot}.zip"

    def ca_file(self, settings: DeviceSettings) -> Path:
        """Who the server's certificate must come from."""
        return self.root / settings.ca_file

    def images_ca_file(self, settings: DeviceSettings) -> Path | None:
        """Who else the certificate of a server of images may come from."""
        return self.root / settings.images_ca_file if settings.images_ca_file else None

    def require_no_device(self) -> None:
        """A device can be laid out here. Raises BadDeviceDirectory: there is one."""
        if self.device_file.exists():
            raise BadDeviceDirectory(f"{self.root} already holds a device. Choose another directory, or remove this one first.")

    def anchor_file(self, certificate_path: str) -> Path:
        """The trust anchor that a job's ``certfile`` names by its last segment.

        Raises:
            BadDeviceDirectory: the last segment is no plain file name.
        """
        name = certificate_path.replace("\\", "/").rsplit("/", 1)[-1]
        if not name.endswith(".pem"):
            name += ".pem"
        if not _ANCHOR_NAME.fullmatch(name) or ".." in name:
            raise BadDeviceDirectory(f"{certificate_path[:200]!r} names no trust anchor: its last segment must be a file name.")
        return self.trust / name


def create_device_directory(
    root: Path,
    settings: DeviceSettings,
    *,
    certificate_pem: bytes | None,
    private_key_pem: bytes | None,
    ca_pem: bytes | None,
    anchors: dict[str, bytes],
    disk: Disk | None = None,
) -> DeviceDirectory:
    """Lay out a new device. An identity that a Uptane device has yet to be given is None. ``anchors`` maps names under
    ``trust/`` (with or without ``.pem``) to PEM certificates.

    Raises:
        BadDeviceDirectory: ``root`` already holds a device, or a name or setting breaks its rule.
    """
    directory = DeviceDirectory(root)
    directory.require_no_device()
    _parse_settings(_members(settings))
    disk = disk or Disk()
    for folder in (root, root / "identity", directory.slots, directory.run, directory.files, directory.trust):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, content, mode in (
        (directory.certificate_file, certificate_pem, 0o644),
        (directory.private_key_file, private_key_pem, 0o600),
        (directory.ca_file(settings), ca_pem, 0o644),
    ):
        if content is not None:
            disk.write_whole(path, content, mode=mode)
    for name, pem in anchors.items():
        disk.write_whole(directory.anchor_file(name), pem, mode=0o644)
    # Last: a directory with a device.json is complete.
    write_settings(directory, settings, disk)
    return directory


def write_settings(directory: DeviceDirectory, settings: DeviceSettings, disk: Disk | None = None) -> None:
    """Replace ``device.json`` durably."""
    text = json.dumps(_members(settings), indent=2) + "\n"
    (disk or Disk()).write_whole(directory.device_file, text.encode(), mode=0o600)


def read_settings(directory: DeviceDirectory) -> DeviceSettings:
    """Read ``device.json``.

    Raises:
        BadDeviceDirectory: there is none, or it breaks a rule.
    """
    try:
        with directory.device_file.open("rb") as file:
            data = file.read(DEVICE_FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise BadDeviceDirectory(
            f"{directory.device_file} can't be read ({reason}). Make a device with: overair device enroll NAME --out DIR"
        ) from None
    try:
        return _parse_settings(strict_json.decode_object(data, size_bytes_max=DEVICE_FILE_SIZE_BYTES_MAX, depth_max=6))
    except strict_json.MalformedJson as error:
        raise BadDeviceDirectory(f"{directory.device_file}: {error}") from None


def _members(settings: DeviceSettings) -> dict[str, object]:
    members = {"format": FORMAT} | {name: getattr(settings, name) for name in DeviceSettings.__slots__}
    for name, default in _LATER_MEMBERS.items():
        if members[name] == default:
            del members[name]
        elif isinstance(members[name], Enum):
            members[name] = members[name].value
    if settings.hooks is not None:
        members["hooks"] = settings.hooks.to_json()
    if settings.uptane is None:
        del members["uptane"]
        return members
    members["uptane"] = settings.uptane.to_json()
    return {name: value for name, value in members.items() if value not in ("", 0)}


def _parse_settings(members: dict[str, object]) -> DeviceSettings:
    if members.get("format") != FORMAT:
        raise BadDeviceDirectory(f"device.json has format {members.get('format')!r}; this program reads format {FORMAT}.")
    unknown = sorted(members.keys() - {"format", *DeviceSettings.__slots__})
    if unknown:
        raise BadDeviceDirectory(f"device.json has the unknown member {unknown[0][:60]!r}.")
    uptane = _uptane(members)
    return DeviceSettings(
        thing_name=_text(members, "thing_name", _THING_NAME) if uptane is None or "thing_name" in members else "",
        hardware_id=_text(members, "hardware_id", _HARDWARE_ID),
        mqtt_host=_text(members, "mqtt_host", _HOST) if uptane is None or "mqtt_host" in members else "",
        mqtt_port=_number(members, "mqtt_port", 1, 65_535) if uptane is None or "mqtt_port" in members else 0,
        ca_file=_text({"ca_file": "identity/ca.pem"} | members, "ca_file", re.compile(r"[^\x00]{1,4096}")),
        images_ca_file=_text({"images_ca_file": ""} | members, "images_ca_file", re.compile(r"[^\x00]{0,4096}")),
        block_size_bytes=_number(members, "block_size_bytes", BLOCK_SIZE_BYTES_MIN, BLOCK_SIZE_BYTES_MAX, BLOCK_SIZE_BYTES),
        slot_size_bytes_max=_number(members, "slot_size_bytes_max", 1, 2**32 - 4096, SLOT_SIZE_BYTES_MAX),
        self_test_timeout_s=_number(members, "self_test_timeout_s", 1, 3600, SELF_TEST_TIMEOUT_S),
        primary_protocol=TransferProtocol(_one_of(members, "primary_protocol", "MQTT", "HTTP")),
        stream_format=Dialect(_one_of(members, "stream_format", "cbor", "json")),
        request_timeout_s=_number(members, "request_timeout_s", 1, 3600, REQUEST_TIMEOUT_S),
        self_test_response_timeout_s=_number(members, "self_test_response_timeout_s", 1, 3600, SELF_TEST_RESPONSE_TIMEOUT_S),
        serial_port=_text({"serial_port": ""} | members, "serial_port", re.compile(r"[^\x00]{0,4096}")),
        serial_baud=_number(members, "serial_baud", 1, 4_000_000, SERIAL_BAUD),
        hooks=_hooks(members),
        uptane=uptane,
    )


def _hooks(members: dict[str, object]) -> HookSettings | None:
    if members.get("hooks") is None:
        return None
    try:
        return parse_hooks(members["hooks"])
    except BadHooks as error:
        raise BadDeviceDirectory(f"device.json: {error}") from None


def _uptane(members: dict[str, object]) -> UptaneSettings | None:
    if "uptane" not in members:
        return None
    try:
        return parse_uptane(members["uptane"])
    except BadUptaneSettings as error:
        raise BadDeviceDirectory(f"device.json: {error}") from None


def _text(members: dict[str, object], name: str, pattern: re.Pattern[str]) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise BadDeviceDirectory(f"device.json: {name} must be text that matches {pattern.pattern}.")
    return value


def _one_of(members: dict[str, object], name: str, *values: str) -> str:
    """One of some words, the first unless said otherwise."""
    value = members.get(name, values[0])
    if not isinstance(value, str) or value not in values:
        raise BadDeviceDirectory(f"device.json: {name} must be one of {', '.join(values)}.")
    return value


def _number(members: dict[str, object], name: str, minimum: int, maximum: int, default: int | None = None) -> int:
    value = members.get(name, default)
    if type(value) is not int or not minimum <= value <= maximum:
        raise BadDeviceDirectory(f"device.json: {name} must be a whole number from {minimum} to {maximum}.")
    return value
