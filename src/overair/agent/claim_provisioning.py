"""How a device gets its identity by a claim, a certificate that a batch of devices shares (wire reference §9.1).

The key is made here and never travels. Each step is on the disk before the next is asked for, so that a power cut costs a
certificate at most, which the server forgets within the hour::

    DIR/identity/private.key     first
    DIR/identity/claimed.json    the certificate that was given, and the right to be made a thing with it; gone in the end
    DIR/configuration.json       what the template had to tell the device
    DIR/device.json              last: the directory is a device's
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.device_directory import (
    BadDeviceDirectory,
    DeviceDirectory,
    DeviceSettings,
    create_device_directory,
)
from overair.agent.durable import Disk
from overair.agent.uptane.identity import new_private_key, signing_request
from overair.wire.fleet_provisioning import (
    ANSWER_SIZE_BYTES_MAX,
    CREATE_FROM_CSR,
    STALE_TOKEN,
    GivenCertificate,
    MalformedAnswer,
    Provisioned,
    Refusal,
    encode_create_from_csr,
    encode_provision,
    parse_certificate,
    parse_provisioned,
    parse_refusal,
    provision_topic,
)

COMMON_NAME: Final = "overair-device"
"""Of what is asked for; the thing's name is the template's to say."""


class ProvisioningRefused(Exception):
    """The server doesn't make this a device, and asking again unchanged can't help; the message says why."""


class ProvisioningUnreachable(Exception):
    """The server couldn't be asked, or had no time. What was reached is kept: ask again."""


class Session(Protocol):
    """A connection under the claim. See ``claim_session.ClaimSession``."""

    def ask(self, topic: str, payload: bytes) -> tuple[bool, bytes]:
        """(whether it was accepted, the answer). Raises ProvisioningUnreachable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """Who wants to become a device."""

    template: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    hardware_id: str
    mqtt_host: str
    mqtt_port: int
    ca_pem: bytes
    anchors: Mapping[str, bytes] = field(default_factory=dict)
    """Signers' certificates, by name."""
    gateway: str | None = None
    """Where it renews its certificate later, over HTTPS."""


def provision_by_claim(
    root: Path, newcomer: Newcomer, *, session: Callable[[], Session], disk: Disk
) -> tuple[DeviceDirectory, Provisioned]:
    """Become a device. ``session`` connects under the claim, when there is something to ask.

    Raises:
        BadDeviceDirectory: ``root`` holds a device already, or what lies in it can't be used.
        ProvisioningRefused: see there.
        ProvisioningUnreachable: see there.
    """
    directory = DeviceDirectory(root)
    directory.require_no_device()
    try:
        topic = provision_topic(newcomer.template)
    except ValueError as error:
        raise ProvisioningRefused(str(error)) from None
    for folder in (root, directory.private_key_file.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    claimed_file = directory.private_key_file.with_name("claimed.json")
    key = _key(directory, disk)
    given = _kept(claimed_file, key)
    connected = session()
    provisioned: Provisioned | None = None
    if given is not None:
        # The power may have been cut after the server had used this token up.
        provisioned = _provision(connected, topic, given, newcomer.parameters)
    if provisioned is None:
        given, answer = _claim(connected, key)
        disk.write_whole(claimed_file, answer)
        provisioned = _provision(connected, topic, given, newcomer.parameters)
    if given is None or provisioned is None:
        raise ProvisioningRefused("The server doesn't take the right to a certificate that it has just given.")
    _lay_out(directory, newcomer, given, provisioned, disk)
    disk.remove(claimed_file)
    return directory, provisioned


def _key(directory: DeviceDirectory, disk: Disk) -> ec.EllipticCurvePrivateKey:
    """The device's key: made once, since a certificate that was asked for is of no use to another."""
    path = directory.private_key_file
    try:
        kept = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        key, pem = new_private_key()
        disk.write_whole(path, pem, mode=0o600)
        return key
    except (OSError, ValueError, TypeError) as error:
        raise BadDeviceDirectory(f"{path} can't be used as a private key: {error}. Remove it to have one made.") from None
    if not isinstance(kept, ec.EllipticCurvePrivateKey):
        raise BadDeviceDirectory(f"{path} is no key on an elliptic curve. Remove it to have one made.")
    return kept


def _claim(session: Session, key: ec.EllipticCurvePrivateKey) -> tuple[GivenCertificate, bytes]:
    """What the server gave, and in its own words."""
    request = signing_request(COMMON_NAME, key, serialization.Encoding.PEM)
    accepted, payload = session.ask(CREATE_FROM_CSR, encode_create_from_csr(request.decode("ascii")))
    try:
        if not accepted:
            raise _told(parse_refusal(payload))
        given = parse_certificate(payload)
    except MalformedAnswer as error:
        raise ProvisioningRefused(f"The server's answer to a signing request can't be read: {error}") from None
    if not _is_for(given.certificate_pem, key):
        raise ProvisioningRefused("The certificate that the server gave isn't for this device's key.")
    return given, payload


def _provision(session: Session, topic: str, given: GivenCertificate, parameters: Mapping[str, str]) -> Provisioned | None:
    """None: the server doesn't know this token any more."""
    accepted, payload = session.ask(topic, encode_provision(given.ownership_token, parameters))
    try:
        if accepted:
            return parse_provisioned(payload)
        refusal = parse_refusal(payload)
    except MalformedAnswer as error:
        raise ProvisioningRefused(f"The server's answer to provisioning can't be read: {error}") from None
    if refusal.code == STALE_TOKEN:
        return None
    raise _told(refusal)


def _told(refusal: Refusal) -> Exception:
    text = f"The server answered {refusal.code}: {refusal.message[:1000]}"
    return ProvisioningUnreachable(text) if refusal.may_pass else ProvisioningRefused(text)


def _is_for(certificate_pem: str, key: ec.EllipticCurvePrivateKey) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        return certificate.public_key() == key.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return False


def _kept(path: Path, key: ec.EllipticCurvePrivateKey) -> GivenCertificate | None:
    try:
        with path.open("rb") as file:
            given = parse_certificate(file.read(ANSWER_SIZE_BYTES_MAX))
    except (FileNotFoundError, MalformedAnswer):
        # A file that can't be read is worth no more than none: another certificate is asked for.
        return None
    return given if _is_for(given.certificate_pem, key) else None


def _lay_out(
    directory: DeviceDirectory, newcomer: Newcomer, given: GivenCertificate, provisioned: Provisioned, disk: Disk
) -> None:
    configuration = json.dumps(dict(provisioned.device_configuration), indent=2) + "\n"
    disk.write_whole(directory.root / "configuration.json", configuration.encode(), mode=0o600)
    if newcomer.gateway is not None:
        disk.write_whole(directory.gateway_file, newcomer.gateway.encode("ascii") + b"\n", mode=0o644)
    create_device_directory(
        directory.root,
        DeviceSettings(
            thing_name=provisioned.thing_name,
            hardware_id=newcomer.hardware_id,
            mqtt_host=newcomer.mqtt_host,
            mqtt_port=newcomer.mqtt_port,
        ),
        certificate_pem=given.certificate_pem.encode(),
        private_key_pem=directory.private_key_file.read_bytes(),
        ca_pem=newcomer.ca_pem,
        anchors=dict(newcomer.anchors),
        disk=disk,
    )
