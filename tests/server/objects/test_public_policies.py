"""Which bucket policies are public, by the meaning that AWS gives the word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overair.server.objects.public_policies import is_public
from overair.server.policy_language.document import Kind, parse_policy

ANYBODY = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::firmware/*"}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def when(operator: str, key: str, *values: str) -> dict[str, Any]:
    return {**ANYBODY, "Condition": {operator: {key: list(values)}}}


PUBLIC: dict[str, dict[str, Any]] = {
    "everyone": ANYBODY,
    "everyone of AWS": {**ANYBODY, "Principal": {"AWS": "*"}},
    "everyone among others": {**ANYBODY, "Principal": {"AWS": ["123456789012", "*"]}},
    "everyone but one": {
        "Effect": "Allow",
        "NotPrincipal": {"AWS": "123456789012"},
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::firmware/*",
    },
    "from anywhere": when("IpAddress", "aws:SourceIp", "0.0.0.0/0"),
    "from half of all addresses": when("IpAddress", "aws:SourceIp", "128.0.0.0/1"),
    "from an address or anywhere": when("IpAddress", "aws:SourceIp", "192.0.2.1", "0.0.0.0/0"),
    "from anywhere by IPv6": when("IpAddress", "aws:SourceIp", "2000::/3"),
    "but from one address": when("NotIpAddress", "aws:SourceIp", "192.0.2.1"),
    "any account's": when("StringLike", "aws:SourceAccount", "*"),
    "accounts' of a pattern": when("StringLike", "aws:PrincipalArn", "arn:aws:iam::*:role/reader"),
    "one's own account by a variable": when("StringEquals", "aws:PrincipalArn", "${aws:PrincipalArn}"),
    "whoever has no account or this one": when("StringEqualsIfExists", "aws:SourceAccount", "123456789012"),
    "whoever's values all are this one": when(
        "ForAllValues:StringEquals", "aws:PrincipalArn", "arn:aws:iam::123456789012:root"
    ),
    "another account's": when("StringNotEquals", "aws:SourceAccount", "123456789012"),
    "over TLS": when("Bool", "aws:SecureTransport", "true"),
    "of a prefix": when("StringEquals", "s3:prefix", "a/"),
    "by a program": when("StringEquals", "aws:UserAgent", "ours"),
}
NOT_PUBLIC: dict[str, dict[str, Any]] = {
    "an account": {**ANYBODY, "Principal": {"AWS": "123456789012"}},
    "a role": {**ANYBODY, "Principal": {"AWS": "arn:aws:iam::123456789012:role/reader"}},
    "the IoT service": {**ANYBODY, "Principal": {"Service": "iot.amazonaws.com"}},
    "nobody": {**ANYBODY, "Effect": "Deny"},
    "from one address": when("IpAddress", "aws:SourceIp", "192.0.2.1"),
    "from a network": when("IpAddress", "aws:SourceIp", "10.0.0.0/8", "2001:db8::/32"),
    "a fixed account's": when("StringEquals", "aws:SourceAccount", "123456789012"),
    "a fixed principal's": when("ArnEquals", "aws:PrincipalArn", "arn:aws:iam::123456789012:role/reader"),
    "principals of an account": when("StringEquals", "aws:PrincipalAccount", "123456789012"),
    "a fixed source's": when("ArnLike", "aws:SourceArn", "arn:aws:iot:us-east-1:123456789012:thing/one"),
    "a fixed user's": when("StringEquals", "aws:userid", "AIDAEXAMPLE"),
}


@pytest.mark.parametrize("who", PUBLIC)
def test_a_policy_that_allows_something_to_whoever_asks_is_public(who: str) -> None:
    assert is_public(parse_policy(policy(PUBLIC[who]), Kind.RESOURCE))
    assert is_public(parse_policy(policy(NOT_PUBLIC["nobody"], PUBLIC[who]), Kind.RESOURCE)), "one open statement is enough"


@pytest.mark.parametrize("who", NOT_PUBLIC)
def test_a_policy_that_names_whom_or_whence_is_not_public(who: str) -> None:
    assert not is_public(parse_policy(policy(NOT_PUBLIC[who]), Kind.RESOURCE))
