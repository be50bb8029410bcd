"""What a bucket's policy may be about, and whether it is public: it allows something to whoever asks, from wherever. Pure.

Reference: Amazon S3 user guide, "Blocking public access to your Amazon S3 storage", the meaning of "public": a statement isn't
public if it names its principals, or holds one of a few keys to values without wildcards and variables.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.server.policy_language.conditions import Condition
from overair.server.policy_language.document import Effect, Policy, Statement
from overair.server.policy_language.patterns import Pattern

_NARROWING_KEYS: Final = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:userid",
    }
)
_NARROWING_OPERATORS: Final = frozenset({"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"})
_PREFIX_LENGTH_MIN: Final = {4: 8, 6: 32}
"""By version of IP: a wider range of addresses is as good as everywhere."""


def check_resources(policy: Policy, bucket: str) -> None:
    """See that a bucket's policy speaks of the bucket itself and of what is in it.

    Raises:
        InvalidRequest: of something else, or of more. Subject ``policy``.
    """
    arn = f"arn:aws:s3:::{bucket}"
    for statement in policy.statements:
        for resource in statement.resources:
            beginning = resource[0] if resource and isinstance(resource[0], str) else ""
            is_bucket = beginning == arn and len(resource) == 1
            if not is_bucket and not beginning.startswith(f"{arn}/"):
                raise InvalidRequest(
                    f"Policy has invalid resource: a policy of the bucket {bucket} is about {arn} or {arn}/… alone.",
                    subject="policy",
                )


def is_public(policy: Policy) -> bool:
    """Whether any statement allows something to everyone."""
    return any(_is_open(statement) for statement in policy.statements)


def _is_open(statement: Statement) -> bool:
    principals = statement.principals
    if statement.effect is not Effect.ALLOW or principals is None:
        return False
    # Everyone but some is everyone.
    return (principals.everyone or principals.negated) and not any(map(_narrows, statement.conditions))


def _narrows(condition: Condition) -> bool:
    if condition.if_exists or condition.quantifier == "ForAllValues":
        return False  # holds for whoever doesn't bring the key
    if condition.key == "aws:sourceip":
        return condition.operator == "IpAddress" and all(map(_is_narrow_range, condition.values))
    is_fixed = all(_fixed(value) is not None for value in condition.values)
    return condition.key in _NARROWING_KEYS and condition.operator in _NARROWING_OPERATORS and is_fixed


def _fixed(value: Pattern) -> str | None:
    """The value's text; None where it has a wildcard or a variable."""
    text = "".join(part if isinstance(part, str) else "*" for part in value)
    return None if "*" in text or "?" in text else text


def _is_narrow_range(value: Pattern) -> bool:
    try:
        network = ipaddress.ip_network(_fixed(value) or "", strict=False)
    except ValueError:
        return False
    return network.prefixlen >= _PREFIX_LENGTH_MIN[network.version]
