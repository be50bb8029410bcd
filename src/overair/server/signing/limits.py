"""The bounds of what an operator may put into a profile. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.server.signing.model import PARAMETER_LENGTH_MAX, PARAMETERS_PER_PROFILE_MAX, VALIDITY_DAYS_MAX, ProfilePlan
from overair.server.signing.platforms import platform_of

TAGS_MAX: Final = 50
PROFILE_NAME: Final = re.compile(r"[a-zA-Z0-9_]{2,64}")


def check_name(name: str) -> None:
    """Raises:
    InvalidRequest: the name isn't 2 to 64 letters, digits and underscores (the model's pattern is tied to its start alone).
    """
    if not PROFILE_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:64]!r} can't name a signing profile: 2 to 64 letters, digits and underscores, no hyphen.",
            subject="signing profile",
        )


def check_plan(plan: ProfilePlan) -> None:
    """Raises:
    InvalidRequest: a limit is broken, or the platform doesn't know the format.
    """
    if len(plan.parameters) > PARAMETERS_PER_PROFILE_MAX or any(
        len(key) > PARAMETER_LENGTH_MAX or len(value) > PARAMETER_LENGTH_MAX for key, value in plan.parameters.items()
    ):
        raise InvalidRequest(
            f"signingParameters holds at most {PARAMETERS_PER_PROFILE_MAX} entries of {PARAMETER_LENGTH_MAX} characters.",
            subject="signingParameters",
        )
    if plan.validity is not None and not (plan.validity.value >= 1 and plan.validity.days <= VALIDITY_DAYS_MAX):
        raise InvalidRequest(
            "signatureValidityPeriod is at least 1 day and at most 100 years.", subject="signatureValidityPeriod"
        )
    platform = platform_of(plan.platform_id)
    if plan.image_format is not None and plan.image_format not in platform.image_formats:
        raise InvalidRequest(
            f"{plan.platform_id} has no format {plan.image_format}. Choose from {', '.join(platform.image_formats)}.",
            subject="signing profile",
        )


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises:
    InvalidRequest: too many, or one too long.
    """
    if len(tags) > TAGS_MAX or any(not 1 <= len(key) <= 128 or len(value) > 256 for key, value in tags.items()):
        raise InvalidRequest(
            f"A resource has at most {TAGS_MAX} tags; a key has 1 to 128 characters, a value at most 256.", subject="tags"
        )
