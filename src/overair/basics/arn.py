"""Amazon Resource Names: ``arn:aws:{service}:{region}:{account}:{resource}``."""

from __future__ import annotations

from dataclasses import dataclass

from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId

ARN_LENGTH_MAX = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Arn:
    """One resource's name. ``resource`` keeps everything after the fifth colon, colons included."""

    service: str
    region: str
    account: str
    resource: str

    def __str__(self) -> str:
        return f"arn:aws:{self.service}:{self.region}:{self.account}:{self.resource}"

    @property
    def kind(self) -> str:
        """The part of the resource before its first slash: ``thing`` in ``thing/dev-1``."""
        return self.resource.partition("/")[0]

    @property
    def name(self) -> str:
        """The part of the resource after its first slash: ``dev-1`` in ``thing/dev-1``."""
        return self.resource.partition("/")[2]


def parse_arn(text: str) -> Arn:
    """Read an ARN.

    Raises:
        InvalidRequest: the text isn't six colon-separated parts that begin with ``arn:aws``.
    """
    parts = text.split(":", 5)
    if len(text) > ARN_LENGTH_MAX or len(parts) != 6 or parts[0] != "arn" or parts[1] != "aws" or not parts[5]:
        raise InvalidRequest(
            f"{text[:200]!r} is not an ARN. An ARN reads arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE.", subject="arn"
        )
    return Arn(service=parts[2], region=parts[3], account=parts[4], resource=parts[5])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a resource lives: the region and account that its ARN names."""

    region: str
    account: AccountId

    def iot(self, kind: str, name: str) -> str:
        """``arn:aws:iot:{region}:{account}:{kind}/{name}``: things, groups, jobs, streams, policies, certificates, …"""
        return f"arn:aws:iot:{self.region}:{self.account}:{kind}/{name}"

    def signer(self, resource: str) -> str:
        """``arn:aws:signer:{region}:{account}:{resource}`` (Signer's resources begin with a slash)."""
        return f"arn:aws:signer:{self.region}:{self.account}:{resource}"

    def acm(self, certificate: str) -> str:
        """``arn:aws:acm:{region}:{account}:certificate/{uuid}``."""
        return f"arn:aws:acm:{self.region}:{self.account}:certificate/{certificate}"

    def iam(self, resource: str) -> str:
        """``arn:aws:iam::{account}:{resource}``: IAM is not regional."""
        return f"arn:aws:iam::{self.account}:{resource}"
