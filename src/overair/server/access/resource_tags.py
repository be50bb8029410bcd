"""Tags of resources of every service, as conditions ask for them: each service's rooms know their own."""

from __future__ import annotations

from collections.abc import Mapping

from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.stores import ResourceTags


class TagsOfServices:
    """``stores.ResourceTags`` by the service that stands in an ARN. A service without an entry has no tags."""

    def __init__(self, by_service: Mapping[str, ResourceTags]) -> None:
        self._by_service = dict(by_service)

    def tags_of(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        """See ``stores.ResourceTags``."""
        parts = arn.split(":", 3)
        known = self._by_service.get(parts[2]) if len(parts) == 4 else None
        return {} if known is None else known.tags_of(tx, account, arn)
