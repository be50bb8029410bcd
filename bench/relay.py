"""What answering through a broker costs: mosquitto with mutual TLS, and a worker of ours behind it that answers each request.

The worker does the least that one can: it knows its block, reads ``n`` from the request and publishes it ``n`` times.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import ssl
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cbor2
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.mqtt_load import Device, Endpoint, Identity
from bench.processes import NotRun, Process, free_port
from overair.wire.mqtt.packets import Publish, encode_publish

_PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
WORKER = "bench-worker"


class Relay:
    """mosquitto and the worker, two processes; ``pid`` of the broker is what is measured."""

    def __init__(self, work: Path, things: Sequence[str], *, stream: str, block_size_bytes: int) -> None:
        program = shutil.which("mosquitto", path=_PATHS)
        if program is None:
            raise NotRun("mosquitto relay: the Debian package mosquitto isn't installed")
        self._folder = work / "relay"
        self._folder.mkdir()
        self._port = free_port()
        authority = _Authority(self._folder)
        self._ca = self._folder / "ca.pem"
        server = authority.issue("localhost")
        self.identities = [authority.issue(thing) for thing in things]
        worker = authority.issue(WORKER)
        configuration = self._folder / "mosquitto.conf"
        configuration.write_text(
            f"listener {self._port} 127.0.0.1\n"
            f"cafile {self._ca}\ncertfile {server.certificate}\nkeyfile {server.key}\n"
            "require_certificate true\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
            "set_tcp_nodelay true\nuser root\n"
        )
        self._broker = Process([program, "-c", str(configuration)], self._folder / "mosquitto.log")
        self._worker = Process(
            [
                *(sys.executable, "-m", "bench.relay", "--port", str(self._port), "--ca", str(self._ca)),
                *("--identity", f"{worker.certificate}:{worker.key}"),
                *("--stream", stream, "--block-size", str(block_size_bytes)),
                *("--ready", str(self._folder / "ready")),
            ],
            self._folder / "worker.log",
        )

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(host="localhost", port=self._port, ca=self._ca)

    def start(self) -> int:
        """Start both; the broker's pid."""
        self._broker.start()
        self._broker.wait_for_port(self._port)
        self._worker.start()
        self._worker.wait_until((self._folder / "ready").exists)
        return self._broker.pid

    def stop(self) -> None:
        self._worker.stop()
        self._broker.stop()


class _Authority:
    """A CA for one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench relay CA")])
        certificate = self._certificate(self._name, self._key.public_key(), is_ca=True)
        (folder / "ca.pem").write_bytes(certificate)

    def issue(self, name: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(self._certificate(subject, key.public_key(), is_ca=False, host=name))
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return Identity(thing=name, certificate=certificate, key=key_file)

    def _certificate(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, is_ca: bool, host: str = "localhost"
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def answer_requests(arguments: argparse.Namespace) -> None:
    """Be the worker until the broker goes or SIGTERM comes."""
    certificate, key = arguments.identity.split(":")
    context = ssl.create_default_context(cafile=arguments.ca)
    context.load_cert_chain(certificate, key)
    device = await Device.open(
        Endpoint(host="localhost", port=arguments.port, ca=Path(arguments.ca)), WORKER, context, client_id=WORKER
    )
    payload = cbor2.dumps({"f": 0, "i": 0, "l": arguments.block_size, "p": bytes(arguments.block_size)})
    answers: dict[str, bytes] = {}

    def received(packet: Publish) -> None:
        answer = answers.get(packet.topic)
        if answer is None:
            answer = answers[packet.topic] = encode_publish(packet.topic.replace("/get/", "/data/"), payload)
        device.write(answer * int(cbor2.loads(packet.payload)["n"]))

    device.on_publish = received
    await device.ask(device.wire.subscribe((f"$aws/things/+/streams/{arguments.stream}/get/cbor", 0)))
    Path(arguments.ready).touch()
    await asyncio.wait([device.lost])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--stream", required=True)
    parser.add_argument("--block-size", type=int, required=True)
    parser.add_argument("--ready", required=True)
    uvloop.run(answer_requests(parser.parse_args()))


if __name__ == "__main__":
    main()
