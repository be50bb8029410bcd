"""MQTT devices that load a gateway: many on one loop, on ``wire/mqtt``, over mutual TLS.

``python -m bench.mqtt_load blocks --port 8883 --ca ca.pem --identity dev-1:cert.pem:key.pem --stream S --size N`` takes blocks
for some seconds and prints a rate; ``idle`` holds connections and prints how fast they were made.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cbor2
import uvloop

from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.packets import Connack, Packet, Pingresp, Publish, Suback

KEEP_ALIVE_S = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the gateway listens. ``ca`` None: plain TCP."""

    host: str
    port: int
    ca: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A thing with its certificate's files."""

    thing: str
    certificate: Path
    key: Path

    def context(self, ca: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(self.certificate, self.key)
        return context


class Device(asyncio.Protocol):
    """One connection. ``on_publish`` is called for each message; acknowledgements are counted."""

    def __init__(self, thing: str) -> None:
        self.thing = thing
        self.wire = ClientConnection()
        self.on_publish: Callable[[Publish], None] = lambda _: None
        self.acknowledged = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Packet] | None = None

    @classmethod
    async def open(cls, endpoint: Endpoint, thing: str, context: ssl.SSLContext | None, *, client_id: str) -> Device:
        """Connect."""
        loop = asyncio.get_running_loop()
        _, device = await loop.create_connection(
            lambda: cls(thing),
            endpoint.host,
            endpoint.port,
            ssl=context,
            server_hostname=endpoint.host if context is not None else None,
        )
        answer = await device.ask(device.wire.connect(client_id, keep_alive_s=KEEP_ALIVE_S))
        if not isinstance(answer, Connack) or answer.return_code != 0:
            raise SystemExit(f"{thing} was refused: {answer}")
        return device

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports don't derive from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for packet in self.wire.receive(data):
            if type(packet) is Publish:
                self.on_publish(packet)
            elif self._answer is not None and isinstance(packet, (Connack, Suback, Pingresp)):
                self._answer.set_result(packet)
                self._answer = None
            else:
                self.acknowledged += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_exception(ConnectionError(f"{self.thing}: the gateway closed the connection ({exc})"))
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"{self.thing}: closed before an answer"))

    async def ask(self, data: bytes) -> Packet:
        """Send something that CONNACK, SUBACK or PINGRESP answers."""
        self._answer = asyncio.get_running_loop().create_future()
        self.write(data)
        return await self._answer

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        self.lost.cancel()
        if self._transport is not None:
            self._transport.abort()


class BlockTaker:
    """Takes one file again and again, as an agent does: ``blocks_per_request`` at a time, asking when the last has come."""

    def __init__(self, device: Device, *, stream: str, size_bytes: int, block_size_bytes: int, blocks_per_request: int) -> None:
        self.count = 0
        self.latencies_s: list[float] = []
        self._device = device
        self._block_size_bytes = block_size_bytes
        topics = f"$aws/things/{device.thing}/streams/{stream}"
        self._request_topic = f"{topics}/get/cbor"
        self.data_topic = f"{topics}/data/cbor"
        blocks = -(-size_bytes // block_size_bytes)
        self._per_request = min(blocks_per_request, blocks)
        self._requests = [
            device.wire.publish(
                self._request_topic,
                cbor2.dumps({"c": "rdy", "f": 0, "l": block_size_bytes, "o": start, "n": self._per_request}),
            )
            for start in range(0, blocks - self._per_request + 1, self._per_request)
        ]
        self._position = 0
        self._awaited = 0
        self._asked_s = 0.0
        self._until = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, *, until_s: float) -> None:
        """Go on until ``time.perf_counter()`` says ``until_s``."""
        self._until = until_s
        self._device.on_publish = self._received
        self._ask()

    def _ask(self) -> None:
        self._awaited = self._per_request
        self._asked_s = time.perf_counter()
        self._device.write(self._requests[self._position])
        self._position = (self._position + 1) % len(self._requests)

    def _received(self, packet: Publish) -> None:
        if len(packet.payload) < self._block_size_bytes:
            self._device.lost.set_exception(ConnectionError(f"{packet.topic}: {packet.payload[:200]!r} is no block"))
            return
        self.count += 1
        self._awaited -= 1
        if self._awaited:
            return
        now = time.perf_counter()
        self.latencies_s.append(now - self._asked_s)
        if now < self._until:
            self._ask()
        elif not self.done.done():
            self.done.set_result(None)


async def take_blocks(devices: Sequence[Device], takers: Sequence[BlockTaker], *, seconds: float) -> int:
    """All devices take blocks side by side; how many came.

    Raises:
        ConnectionError: a connection was closed meanwhile.
    """
    before = sum(taker.count for taker in takers)
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    for taker in takers:
        taker.done = loop.create_future()
        taker.start(until_s=until)
    await _all_or_lost([taker.done for taker in takers], devices)
    return sum(taker.count for taker in takers) - before


async def report_statuses(devices: Sequence[Device], *, jobs: Sequence[str], each: int, in_flight: int = 1) -> int:
    """Every device sends status updates of its own execution at QoS 1, ``in_flight`` at once; how many were accepted.

    Raises:
        ConnectionError: an update was rejected, or a connection closed.
    """
    loop = asyncio.get_running_loop()
    ended: list[asyncio.Future[int]] = []
    for device, job in zip(devices, jobs, strict=True):
        future: asyncio.Future[int] = loop.create_future()
        ended.append(future)
        _report(device, job, each, in_flight, future)
    await _all_or_lost(ended, devices)
    return sum(future.result() for future in ended)


async def _all_or_lost(done: Sequence[asyncio.Future[Any]], devices: Sequence[Device]) -> None:
    futures: list[asyncio.Future[Any]] = [asyncio.ensure_future(asyncio.gather(*done)), *(device.lost for device in devices)]
    ended, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for each in ended:
        each.result()


def _report(device: Device, job: str, count: int, in_flight: int, done: asyncio.Future[int]) -> None:
    topic = f"$aws/things/{device.thing}/jobs/{job}/update"
    state = {"sent": 0, "accepted": 0}

    def send() -> None:
        state["sent"] += 1
        details = {"status": "IN_PROGRESS", "statusDetails": {"receive": f"{state['sent']}/{count}"}}
        device.write(device.wire.publish(topic, json.dumps(details).encode(), qos=1))

    def received(packet: Publish) -> None:
        if packet.packet_id:
            device.write(b"\x40\x02" + packet.packet_id.to_bytes(2, "big"))
        if not packet.topic.endswith("/accepted"):
            done.set_exception(ConnectionError(f"{packet.topic}: {packet.payload[:200]!r}"))
            return
        state["accepted"] += 1
        if state["sent"] < count:
            send()
        elif state["accepted"] == count and not done.done():
            done.set_result(count)

    device.on_publish = received
    for _ in range(min(in_flight, count)):
        send()


async def open_many(
    endpoint: Endpoint,
    identities: Sequence[Identity],
    *,
    count: int,
    at_once: int = 64,
    prefix: str = "",
    kind: type[Device] = Device,
) -> list[Device]:
    """``count`` connections over these identities in turn, ``at_once`` handshakes at a time. The client id is the thing's name
    behind ``prefix``, and a number where a thing comes again."""
    contexts = {each.thing: each.context(endpoint.ca) if endpoint.ca is not None else None for each in identities}
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> Device:
        identity = identities[number % len(identities)]
        name = identity.thing if number < len(identities) else f"{identity.thing}-{number}"
        async with gate:
            return await kind.open(endpoint, identity.thing, contexts[identity.thing], client_id=prefix + name)

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def _identity(text: str) -> Identity:
    thing, certificate, key = text.split(":")
    return Identity(thing=thing, certificate=Path(certificate), key=Path(key))


async def _blocks(arguments: argparse.Namespace, endpoint: Endpoint) -> None:
    devices = await open_many(endpoint, arguments.identity, count=len(arguments.identity))
    takers = []
    for device in devices:
        taker = BlockTaker(
            device,
            stream=arguments.stream,
            size_bytes=arguments.size,
            block_size_bytes=arguments.block_size,
            blocks_per_request=arguments.blocks_per_request,
        )
        await device.ask(device.wire.subscribe((taker.data_topic, 0)))
        takers.append(taker)
    began = time.perf_counter()
    count = await take_blocks(devices, takers, seconds=arguments.seconds)
    took = time.perf_counter() - began
    latencies = sorted(each for taker in takers for each in taker.latencies_s)
    median, late = statistics.median(latencies) * 1e3, latencies[int(len(latencies) * 0.99)] * 1e3
    print(f"{count / took:,.0f} blocks/s, request p50 {median:.2f} ms p99 {late:.2f} ms")
    for device in devices:
        device.close()


async def _idle(arguments: argparse.Namespace, endpoint: Endpoint) -> None:
    began = time.perf_counter()
    devices = await open_many(endpoint, arguments.identity, count=arguments.count)
    took = time.perf_counter() - began
    print(f"{len(devices) / took:,.0f} connections/s", flush=True)
    await asyncio.sleep(arguments.seconds)
    for device in devices:
        device.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["blocks", "idle"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--identity", type=_identity, action="append", required=True, help="THING:CERTIFICATE:KEY")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--stream", default="s")
    parser.add_argument("--size", type=int, default=1024 * 1024)
    parser.add_argument("--block-size", type=int, default=4096)
    parser.add_argument("--blocks-per-request", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    endpoint = Endpoint(host=arguments.host, port=arguments.port, ca=arguments.ca)
    uvloop.run({"blocks": _blocks, "idle": _idle}[arguments.what](arguments, endpoint))


if __name__ == "__main__":
    main()
