"""Links to objects that carry their own signature, for devices that download over HTTP. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

from overair.basics.clock import Instant, as_datetime
from overair.wire.sigv4_claim import Scope, SignableRequest, format_timestamp
from overair.wire.sigv4_signing import SigningCredentials, presign

LINK_SIZE_BYTES_MAX: Final = 1500
"""What the C agents' buffer holds (wire reference §13, 35)."""


def presigned_link(
    *,
    base_url: str,
    region: str,
    bucket: str,
    key: str,
    version_id: str | None,
    credentials: SigningCredentials,
    now: Instant,
    expires_s: int,
) -> str:
    """A Version 4 link to GET (and only that) one object.

    Args:
        base_url: Scheme, host and port of the device port, without a path: ``https://host:8443``.
        version_id: None for whatever is the latest when the link is used.
        expires_s: 1 to 604,800.

    Raises:
        ValueError: ``expires_s`` is out of bounds, or ``base_url`` has no host.
    """
    host = urlsplit(base_url).netloc
    if not host:
        raise ValueError(f"{base_url!r} isn't a URL with a host.")
    path = f"/{quote(bucket, safe='-._~')}/{quote(key, safe='/-._~')}"
    query = f"versionId={quote(version_id, safe='-._~')}" if version_id is not None else ""
    timestamp = format_timestamp(as_datetime(now))
    signed = presign(
        SignableRequest(method="GET", path=path.encode(), query=query.encode(), headers=[(b"host", host.encode())]),
        credentials,
        scope=Scope(date=timestamp[:8], region=region, service="s3"),
        timestamp=timestamp,
        expires_s=expires_s,
        normalise=False,
    )
    return f"{base_url.rstrip('/')}{path}?{signed.decode('ascii')}"
