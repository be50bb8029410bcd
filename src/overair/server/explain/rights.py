"""What a certificate would be refused, if its device came now: asked of the same authority that the gateway asks."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from overair.basics.ids import ClientId, StreamId, ThingName
from overair.server.gateway.authority import DeviceAuthority, DevicePolicy, Refusal

ASKED_FROM: Final = "127.0.0.1"
"""A policy that looks at the source address is judged as if the device stood here: its real address isn't known."""


async def obstacles(
    authority: DeviceAuthority, certificate_pem: str, thing: ThingName, stream: StreamId | None
) -> tuple[str, ...]:
    """Why a device with this certificate couldn't connect as the thing, or couldn't do its work once connected.

    Empty: nothing stands in its way. ``stream`` is the one that its next job names, if any.
    """
    der = x509.load_pem_x509_certificate(certificate_pem.encode()).public_bytes(Encoding.DER)
    verdict = await authority.admit(der, ClientId(thing), None, ASKED_FROM)
    if isinstance(verdict, Refusal):
        return (f"The gateway refuses it: {verdict.reason}.",)
    if not verdict.policy.allows_connect(thing):
        return (f"Its policies don't allow iot:Connect on client/{thing}: attach one that does.",)
    lacking = _lacking(verdict.policy, thing, stream)
    if not lacking:
        return ()
    return (f"Its policies don't allow what an agent needs: {', '.join(lacking)}. Attach one that does.",)


def _lacking(policy: DevicePolicy, thing: ThingName, stream: StreamId | None) -> list[str]:
    """The actions that the C agent's road takes (wire reference §1.2) and the policy doesn't allow."""
    jobs = f"$aws/things/{thing}/jobs"
    needed = [
        ("iot:Publish on topic", f"{jobs}/$next/get", policy.allows_publish),
        ("iot:Receive on topic", f"{jobs}/$next/get/accepted", policy.allows_receive),
        ("iot:Subscribe on topicfilter", f"{jobs}/notify-next", policy.allows_subscribe),
        ("iot:Receive on topic", f"{jobs}/notify-next", policy.allows_receive),
    ]
    if stream is not None:
        streams = f"$aws/things/{thing}/streams/{stream}"
        needed += [
            ("iot:Publish on topic", f"{streams}/get/cbor", policy.allows_publish),
            ("iot:Subscribe on topicfilter", f"{streams}/data/cbor", policy.allows_subscribe),
            ("iot:Receive on topic", f"{streams}/data/cbor", policy.allows_receive),
        ]
    return [f"{action}/{topic}" for action, topic, allows in needed if not allows(topic)]
