"""The revocation cut-off: from the operator's answer to the device's socket closed, one live session after the other."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from bench.fleet import Fleet
from bench.mqtt_load import Device, open_many
from bench.processes import Overair
from bench.profiles import Profile
from overair.wire.mqtt.packets import PINGREQ_BYTES

CUT_MS_MAX: Final = 1000.0
PATIENCE_S: Final = 30.0


@dataclass(slots=True, kw_only=True)
class RevocationResults:
    """Milliseconds after the operator's answer, of each session; below zero where the socket was closed before it."""

    cuts_ms: list[float] = field(default_factory=list)
    kept_count: int = 0
    """Sessions of others that were live beside, and stayed."""

    @property
    def median_ms(self) -> float:
        return statistics.median(self.cuts_ms)

    @property
    def p99_ms(self) -> float:
        return sorted(self.cuts_ms)[min(len(self.cuts_ms) - 1, int(len(self.cuts_ms) * 0.99))]


class CutDevice(Device):
    """Notes when its connection ended."""

    ended_s: float = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended_s = time.perf_counter()
        super().connection_lost(exc)


async def measure_revocation(profile: Profile, work: Path) -> RevocationResults:
    """Connect as many devices again as are revoked, revoke every second one, and see who is cut when."""
    results = RevocationResults()
    with ExitStack() as stack:
        overair = Overair(work / "revocation")
        stack.callback(overair.stop)
        overair.start()
        fleet = Fleet(overair, work)
        identities = fleet.enroll(2 * profile.revoked_sessions_count)
        iot = overair.target(tls=False).client("iot")
        devices = await open_many(fleet.endpoint, identities, count=len(identities), kind=CutDevice)
        for device, identity in list(zip(devices, identities, strict=True))[::2]:
            answered_s = await asyncio.to_thread(_revoke, iot, identity.certificate)
            await asyncio.wait([device.lost], timeout=PATIENCE_S)
            if not device.lost.done():
                raise TimeoutError(f"{identity.thing} was revoked and is still connected after {PATIENCE_S:g} s")
            device.lost.exception()  # heard
            assert isinstance(device, CutDevice)
            results.cuts_ms.append((device.ended_s - answered_s) * 1000)
        results.kept_count = await _still_there(devices[1::2])
        for device in devices:
            device.close()
    return results


def _revoke(iot: Any, certificate: Path) -> float:
    """When the operator had his answer."""
    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    iot.update_certificate(certificateId=leaf.fingerprint(hashes.SHA256()).hex(), newStatus="REVOKED")
    return time.perf_counter()


async def _still_there(devices: Sequence[Device]) -> int:
    for device in devices:
        await device.ask(PINGREQ_BYTES)
    return len(devices)


def revocation_lines(results: RevocationResults) -> list[str]:
    """The section of the report."""
    return [
        "## Revocation cut-off",
        "",
        f"UpdateCertificate makes {len(results.cuts_ms)} certificates REVOKED, one after the other, each with a live MQTT "
        f"session over TLS; {results.kept_count} others are live beside and stay. From the operator's answer to the device's "
        "socket closed (below zero: closed before the answer came):",
        "",
        "| median | p99 | worst |",
        "|---|---|---|",
        f"| {results.median_ms:.1f} ms | {results.p99_ms:.1f} ms | {max(results.cuts_ms):.1f} ms |",
        "",
    ]


def revocation_shortfalls(results: RevocationResults) -> list[str]:
    """What isn't met, in a sentence each."""
    if results.p99_ms <= CUT_MS_MAX:
        return []
    return [f"A revoked certificate's session lasts {results.p99_ms:,.0f} ms (p99); wanted at most {CUT_MS_MAX:,.0f}."]
