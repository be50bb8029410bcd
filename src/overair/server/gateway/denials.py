"""Who hears of what devices aren't let do. Declared here, implemented above (``audit``), joined in the composition."""

from __future__ import annotations

from typing import Final, Protocol

from overair.basics.ids import AccountId
from overair.server.gateway.authority import DeviceIdentity, Proof, Refusal, RefusalCode

MQTT: Final = "mqtt"
HTTPS: Final = "device-https"
"""What such rows call the service: the two ways into the device port."""


class DenialWitness(Protocol):
    """Called on the event loop for each denial: it must return at once, never fail, and bear a flood."""

    def device_denied(
        self,
        account: AccountId | None,
        principal_arn: str | None,
        *,
        service: str,
        operation: str,
        resource: str,
        source_ip: str,
        request_id: str = "",
    ) -> None:
        """Somebody wasn't let in, or wasn't allowed to. ``account`` and ``principal_arn`` are None where nobody knows who it
        is."""
        ...


class Unwitnessed:
    """Nobody listens."""

    def device_denied(
        self,
        account: AccountId | None,
        principal_arn: str | None,
        *,
        service: str,
        operation: str,
        resource: str,
        source_ip: str,
        request_id: str = "",
    ) -> None:
        """See ``DenialWitness``."""


def tell_not_admitted(
    witness: DenialWitness,
    verdict: DeviceIdentity | Refusal,
    *,
    service: str,
    operation: str,
    kind: str,
    name: str,
    source_ip: str,
    proof: Proof | None = None,
    request_id: str = "",
) -> None:
    """A peer may not do what it came for: the resource is ``kind/name``. A verdict that couldn't be reached is no denial."""
    if isinstance(verdict, Refusal) and verdict.code is RefusalCode.UNAVAILABLE:
        return
    place, certificate = verdict.place, verdict.certificate_id
    principal_arn = None
    if proof is not None:
        principal_arn = proof.principal_arn
    elif place is not None and certificate is not None:
        principal_arn = place.iot("cert", certificate)
    witness.device_denied(
        None if place is None else place.account,
        principal_arn,
        service=service,
        operation=operation,
        resource=f"{kind}/{name}" if place is None else place.iot(kind, name),
        source_ip=source_ip,
        request_id=request_id,
    )
