"""Links for the placeholders in job documents: signed as the job's role, good on the device port (wire reference §3.9)."""

from __future__ import annotations

from collections.abc import Callable

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.ids import BucketName, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.access.link_keys import LinkKeys
from overair.server.access.service import AccessService
from overair.server.objects.links import presigned_link


class RolePresigner:
    """``ports.Presigner`` over the role's trust and a key that travels in the link. Writes nothing."""

    def __init__(self, *, roles: AccessService, links: LinkKeys, clock: Clock, base_url: Callable[[], str]) -> None:
        """``base_url`` is the device port as devices see it; asked at each link, since a free port is known only once open."""
        self._roles = roles
        self._links = links
        self._clock = clock
        self._base_url = base_url

    def presigned_url(
        self,
        tx: Tx,
        place: Place,
        role_arn: str,
        *,
        bucket: BucketName,
        key: ObjectKey,
        version: VersionId | None,
        expires_s: int,
        source_arn: str,
    ) -> str:
        """See ``ports.Presigner``."""
        role = self._roles.assume_as_service(tx, place, role_arn, source_arn=source_arn)
        now = self._clock.now()
        return presigned_link(
            base_url=self._base_url(),
            region=place.region,
            bucket=bucket,
            key=key,
            version_id=version,
            credentials=self._links.mint(role, expires=Instant(now + expires_s * 1000)),
            now=now,
            expires_s=expires_s,
        )
