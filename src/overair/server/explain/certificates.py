"""What is told of a thing's certificates whatever it does: one that follows another, and keys that came out of turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overair.basics.clock import Instant, as_datetime
from overair.basics.ids import CertificateId
from overair.server.certificates.model import CertificateStatus, DeviceCertificate
from overair.server.provisioning.model import Anomaly, AnomalyKind
from overair.server.provisioning.renewal_model import RenewalRequest, RenewalRequestState

NAMED_MAX: Final = 5
_ODD: Final = {
    AnomalyKind.UNREGISTERED: "a certificate of a trusted authority came under its name, and no rule lets it in",
    AnomalyKind.REUSED_ID: "another device would be given its name by a template, which an operator has yet to approve",
    AnomalyKind.RENEWAL: "it came with a new key near the end of its certificate, which an operator has yet to approve",
    AnomalyKind.KEY_MISMATCH: "ALARM: another key came under its name, out of turn, and was refused: a cloned name, a "
    "device made anew, or a theft",
    AnomalyKind.SUPERSEDED: "ALARM: a certificate that another one has replaced asked for a further one, and was refused: a "
    "copy of the device, or a theft",
}


def standing(
    certificates: Sequence[DeviceCertificate], anomalies: Sequence[Anomaly], request: RenewalRequest | None
) -> list[str]:
    """Renewals under way, then what was odd."""
    by_id = {each.id: each for each in certificates}
    chain = [_overlap(each, by_id[each.replaces]) for each in certificates if each.replaces in by_id and _overlaps(each, by_id)]
    if request is not None and request.state is RenewalRequestState.WAITING:
        chain.append(
            f"It has asked for a new certificate at {_moment(request.requested_at)}, which an authority of yours must issue "
            "(`overair renewal requests`)."
        )
    if request is not None and request.state is RenewalRequestState.REFUSED:
        chain.append(f"Its renewal was refused: {request.reason or 'no reason was given'}.")
    for anomaly in anomalies[:NAMED_MAX]:
        times = f", {anomaly.times_seen} times" if anomaly.times_seen > 1 else ""
        chain.append(
            f"{_ODD[anomaly.kind]} (certificate {_short(anomaly.certificate_id)} from {anomaly.source_ip}, last at "
            f"{_moment(anomaly.last_seen_at)}{times})."
        )
    return chain


def _overlaps(new: DeviceCertificate, by_id: dict[CertificateId, DeviceCertificate]) -> bool:
    return new.replaces is not None and by_id[new.replaces].status is CertificateStatus.ACTIVE


def _overlap(new: DeviceCertificate, old: DeviceCertificate) -> str:
    until = "" if old.retires_at is None else f" from {_moment(old.retires_at)} on"
    if new.awaits_first_use:
        return f"Certificate {_short(new.id)} is to replace {_short(old.id)}, and nobody has come with it yet: both are good."
    return f"Certificate {_short(new.id)} has replaced {_short(old.id)}, which retires{until}."


def _short(certificate: CertificateId) -> str:
    return f"{certificate[:16]}…"


def _moment(instant: Instant) -> str:
    return as_datetime(instant).strftime("%Y-%m-%d %H:%M:%S UTC")
