"""A revoked, inactive, expired, detached or deleted certificate loses its live sessions within a second: MQTT's connection is
cut, and a kept-alive HTTPS connection gets nothing more."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from overair.cli.device import device_policy
from overair.wire.mqtt.packets import Connack
from tests.support import pki
from tests.support.mqtt_over_tls import MqttOverTls, device_context
from tests.support.pki import Held
from tests.support.server_process import ServerProcess

WITHIN_S = 1.0
GRACE_S = 2.0
"""For a machine with too much to do; the bench measures the promise itself."""
LIVES_S = (3, 15, 60)
"""How long the certificate is good that expires: the next one where this machine was too slow to connect in time."""
NEVER = datetime(2049, 1, 1, tzinfo=UTC)


@dataclass
class LiveDevice:
    """A device with an MQTT connection and a kept-alive HTTPS connection, both let in."""

    server: ServerProcess
    thing: str
    leaf: Held
    arn: str
    context: ssl.SSLContext
    mqtt: MqttOverTls = field(init=False)
    https: http.client.HTTPSConnection = field(init=False)

    def __post_init__(self) -> None:
        self.mqtt = self.connection()
        at = urlsplit(self.server.endpoints["device_url"])
        self.https = http.client.HTTPSConnection(str(at.hostname), at.port, context=self.context, timeout=30)

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    def connection(self) -> MqttOverTls:
        endpoints = self.server.endpoints
        return MqttOverTls(endpoints["mqtt_host"], endpoints["mqtt_port"], self.context, self.thing)

    def is_in(self) -> bool:
        """Both connections speak."""
        return isinstance(self.mqtt.connack, Connack) and self.mqtt.connack.return_code == 0 and self.asks() == "OK"

    def asks(self) -> str:
        """OK, or by which name it is refused its jobs, over the connection that is kept alive."""
        self.https.request("GET", f"/things/{self.thing}/jobs")
        answer = self.https.getresponse()
        answer.read()
        return "OK" if answer.status == 200 else answer.headers["x-amzn-errortype"]

    def loses_both(self, begun_s: float) -> None:
        assert self.mqtt.next(timeout_s=30) is None
        assert time.monotonic() - begun_s < WITHIN_S + GRACE_S
        assert self.asks() in ("CertificateValidationException", "ForbiddenException", "AccessDeniedException")
        again = self.connection()
        assert again.connack is None or again.connack.return_code != 0
        again.close()

    def close(self) -> None:
        self.mqtt.close()
        self.https.close()


Make = Callable[..., LiveDevice]


@pytest.fixture
def make(server: ServerProcess, tmp_path: Path) -> Iterator[Make]:
    iot, unique = server.client("iot"), uuid.uuid4().hex[:8]
    document = device_policy(server.endpoints["region"], server.endpoints["account"])
    iot.create_policy(policyName=f"live-{unique}", policyDocument=json.dumps(document))
    made: list[LiveDevice] = []

    def make(*, dies: datetime = NEVER) -> LiveDevice:
        thing = f"live-{unique}-{len(made)}"
        leaf = pki.device(pki.authority(), thing, born=datetime.now(UTC) - timedelta(days=1), dies=dies)
        arn = iot.register_certificate_without_ca(certificatePem=leaf.pem, status="ACTIVE")["certificateArn"]
        iot.create_thing(thingName=thing)
        iot.attach_thing_principal(thingName=thing, principal=arn, thingPrincipalType="EXCLUSIVE_THING")
        iot.attach_policy(policyName=f"live-{unique}", target=arn)
        certificate_file, key_file = tmp_path / f"{thing}.pem", tmp_path / f"{thing}.key"
        certificate_file.write_text(leaf.pem)
        key_file.write_text(leaf.key_pem)
        context = device_context(server.endpoints["ca_file"], certificate_file, key_file)
        made.append(LiveDevice(server, thing, leaf, arn, context))
        return made[-1]

    yield make
    for device in made:
        device.close()


def revoke(iot: Any, device: LiveDevice) -> None:
    iot.update_certificate(certificateId=device.id, newStatus="REVOKED")


def deactivate(iot: Any, device: LiveDevice) -> None:
    iot.update_certificate(certificateId=device.id, newStatus="INACTIVE")


def detach(iot: Any, device: LiveDevice) -> None:
    iot.detach_thing_principal(thingName=device.thing, principal=device.arn)


def delete(iot: Any, device: LiveDevice) -> None:
    """As an operator must: detached, inactive, and gone; the first of the three cuts."""
    iot.detach_thing_principal(thingName=device.thing, principal=device.arn)
    iot.update_certificate(certificateId=device.id, newStatus="INACTIVE")
    iot.delete_certificate(certificateId=device.id, forceDelete=True)


@pytest.mark.parametrize("take_away", [revoke, deactivate, detach, delete])
def test_a_certificate_that_is_taken_away_loses_its_live_sessions(
    server: ServerProcess, make: Make, take_away: Callable[[Any, LiveDevice], None]
) -> None:
    iot, device, other = server.client("iot"), make(), make()
    assert device.is_in()
    assert other.is_in()
    begun_s = time.monotonic()
    take_away(iot, device)
    device.loses_both(begun_s)
    assert other.mqtt.before_ping_answer() == []  # whoever isn't meant stays
    assert other.asks() == "OK"


def test_a_certificate_that_expires_loses_its_live_sessions_at_its_end(make: Make) -> None:
    for life_s in LIVES_S:
        ends = (datetime.now(UTC) + timedelta(seconds=life_s)).replace(microsecond=0)
        device = make(dies=ends)
        if device.is_in():
            break
    assert datetime.now(UTC) < ends, "no certificate lived long enough to connect"
    assert device.mqtt.next(timeout_s=life_s + 30) is None
    late_s = (datetime.now(UTC) - ends).total_seconds()
    # A certificate holds through its last second.
    assert 0 <= late_s < 1 + WITHIN_S + GRACE_S
    device.loses_both(time.monotonic())
