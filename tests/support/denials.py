"""A ``gateway.denials.DenialWitness`` that tests can read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from overair.basics.ids import AccountId


class Denial(NamedTuple):
    account: AccountId | None
    principal_arn: str | None
    service: str
    operation: str
    resource: str
    source_ip: str


@dataclass
class Denials:
    heard: list[Denial] = field(default_factory=list)

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
        self.heard.append(Denial(account, principal_arn, service, operation, resource, source_ip))

    def told(self) -> list[tuple[str, str]]:
        """(operation, the end of the resource) of what was heard since the last time."""
        found = [(each.operation, each.resource.rpartition(":")[2]) for each in self.heard]
        self.heard.clear()
        return found
