"""Nouns of provisioning by template: templates, their versions, claims, and certificates that nobody has provisioned yet."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NewType

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId

TemplateName = NewType("TemplateName", str)
"""1 to 36 of ``[0-9A-Za-z_-]``."""

TEMPLATE_ORIGIN: Final = "template/"
"""Begins the origin of a thing that a provisioning template made; its name follows."""
TEMPLATES_MAX: Final = 1_000
VERSIONS_MAX: Final = 5
"""The sixth version of a template is refused (wire reference §9.2)."""
OWNERSHIP_LIFE_MS: Final = 60 * 60_000
"""How long a certificate waits for its device to be provisioned (wire reference §9.1)."""
CLAIM_LIFE_MS: Final = 5 * 60_000
"""Of a temporary claim that a trusted user made."""
UNPROVISIONED_MAX: Final = 10_000
"""Certificates of one account that wait at once."""
REQUESTS_PER_MINUTE: Final = 600
"""Of one account, certificates and provisionings each: AWS's ten a second."""


class TemplateType(Enum):
    """What brings a template's devices in (iot model, ``TemplateType``)."""

    FLEET_PROVISIONING = "FLEET_PROVISIONING"
    JITP = "JITP"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningHook:
    """What is asked before a device is provisioned."""

    target_arn: str
    payload_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningTemplate:
    """A named template with the body that is in force."""

    account: AccountId
    name: TemplateName
    type: TemplateType
    description: str
    enabled: bool
    role_arn: str
    hook: ProvisioningHook | None
    default_version: int
    last_version: int
    """The highest number ever given; numbers are not given twice."""
    body: str
    created_at: Instant
    modified_at: Instant

    @property
    def origin(self) -> str:
        """What the things that it makes are marked with."""
        return TEMPLATE_ORIGIN + self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateVersion:
    """One version of a template: a body that never changes."""

    template: TemplateName
    version: int
    body: str
    created_at: Instant
    is_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateOwnership:
    """A certificate that was given out and waits to be provisioned. Who shows the token over the same claim owns it."""

    account: AccountId
    token_sha256: str
    certificate_id: CertificateId
    claim: str
    """The principal of the connection that asked: a claim certificate's id, or an operator's."""
    expires_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporaryClaim:
    """A claim certificate that a trusted user made: good for one template, and for a few minutes."""

    account: AccountId
    certificate_id: CertificateId
    template: TemplateName
    expires_at: Instant
