"""What is to be said of the signatures under which a job goes out, or went out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overair.basics.clock import Instant, as_datetime
from overair.server.signing.model import Fault, Standing

SHOWN: Final = 16


def told(standings: Sequence[Standing], *, now: Instant, goes_out: bool) -> list[str]:
    """Sentences about signatures that were revoked or have ended, and about certificates that have. Nothing about sound ones.

    ``goes_out``: things may still be given the job; else they have what was signed, or never will.
    """
    chain = []
    for standing in standings:
        if standing.fault is Fault.REVOKED:
            after = (
                "Nobody is given the image any more. Who has installed it runs it until another image is shipped, since a "
                "device asks nobody before it boots."
            )
            chain.append(f"{standing.why.rstrip('.')}. {after}")
        elif standing.fault is Fault.EXPIRED:
            after = "Who has installed the image keeps it; nobody else is given it. Sign it again to ship it further."
            chain.append(f"{standing.why.rstrip('.')}. {after}")
        certificate = standing.job.certificate
        if certificate is not None and certificate.not_after < now:
            after = "devices look at no dates, so that what it signed before installs" if goes_out else "what it signed runs on"
            chain.append(
                f"The certificate that signed it ({certificate.sha256[:SHOWN]}…) ended at {_moment(certificate.not_after)} and "
                f"signs nothing new; {after}."
            )
    return chain


def named(standings: Sequence[Standing]) -> list[str]:
    """Which certificates signed: for a device that refused, to be held against those that it trusts."""
    chain = []
    for standing in standings:
        certificate, job = standing.job.certificate, standing.job
        if certificate is not None:
            name = job.parameters.get("certname", "")
            where = f" as {name}" if name else ""
            chain.append(
                f"It was signed by certificate {certificate.sha256[:SHOWN]}… of signing profile {job.profile}: see that the "
                f"device trusts that one{where}. A new signer's certificate is shipped ahead (docs/signing.md)."
            )
    return chain


def _moment(instant: Instant) -> str:
    return as_datetime(instant).strftime("%Y-%m-%d %H:%M:%S UTC")
