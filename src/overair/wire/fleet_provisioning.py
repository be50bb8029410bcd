"""Fleet provisioning from the device's side, in JSON: requests out, answers in (wire reference §9.1). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from overair.basics.redacted import Redacted
from overair.wire import strict_json

CREATE_FROM_CSR: Final = "$aws/certificates/create-from-csr/json"
ANSWER_SIZE_BYTES_MAX: Final = 128 * 1024
STALE_TOKEN: Final = "InvalidCertificateOwnershipToken"  # noqa: S105 (a code, no secret)
"""Refusal of a token that was used, or is older than an hour."""
_TEMPLATE_NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,36}")


class MalformedAnswer(ValueError):
    """An answer from a server that isn't one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenCertificate:
    """The server's answer to a signing request: a certificate that isn't active yet, and the right to provision with it."""

    certificate_id: str
    certificate_pem: str
    ownership_token: Redacted[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """The server's answer to provisioning."""

    thing_name: str
    device_configuration: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal as a device reads it."""

    status_code: int
    code: str
    message: str

    @property
    def may_pass(self) -> bool:
        """Whether asking again later can help: too many at once, or a fault of the server."""
        return self.status_code == 429 or self.status_code >= 500


def provision_topic(template: str) -> str:
    """Where a template's devices ask. Raises ValueError for what can't be a template's name."""
    if not _TEMPLATE_NAME.fullmatch(template):
        raise ValueError(f"A template's name matches {_TEMPLATE_NAME.pattern}.")
    return f"$aws/provisioning-templates/{template}/provision/json"


def claim_policy(region: str, account: str, template: str) -> dict[str, Any]:
    """What a claim for one template may do: ask for a certificate, and to be made a thing by it; nothing else (§9.2)."""
    arn = f"arn:aws:iot:{region}:{account}"
    topics = [
        "$aws/certificates/create/*",
        "$aws/certificates/create-from-csr/*",
        f"$aws/provisioning-templates/{template}/provision/*",
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": ["iot:Publish", "iot:Receive"],
                "Resource": [f"{arn}:topic/{topic}" for topic in topics],
            },
            {
                "Effect": "Allow",
                "Action": "iot:Subscribe",
                "Resource": [f"{arn}:topicfilter/{topic}" for topic in topics],
            },
        ],
    }


def encode_create_from_csr(signing_request_pem: str) -> bytes:
    """Ask for a certificate; the key stays here."""
    return json.dumps({"certificateSigningRequest": signing_request_pem}).encode()


def encode_provision(ownership_token: Redacted[str], parameters: Mapping[str, str]) -> bytes:
    """Ask to be made a thing."""
    return json.dumps({"certificateOwnershipToken": ownership_token.reveal(), "parameters": dict(parameters)}).encode()


def parse_certificate(payload: bytes) -> GivenCertificate:
    """Raises MalformedAnswer."""
    members = _members(payload)
    return GivenCertificate(
        certificate_id=_text(members, "certificateId"),
        certificate_pem=_text(members, "certificatePem"),
        ownership_token=Redacted(_text(members, "certificateOwnershipToken")),
    )


def parse_provisioned(payload: bytes) -> Provisioned:
    """Raises MalformedAnswer."""
    members = _members(payload)
    configuration = members.get("deviceConfiguration", {})
    if not isinstance(configuration, dict) or not all(isinstance(value, str) for value in configuration.values()):
        raise MalformedAnswer("deviceConfiguration must be an object of texts.")
    return Provisioned(thing_name=_text(members, "thingName"), device_configuration=configuration)


def parse_refusal(payload: bytes) -> Refusal:
    """Raises MalformedAnswer."""
    members = _members(payload)
    status = members.get("statusCode")
    if type(status) is not int:
        raise MalformedAnswer("statusCode must be a whole number.")
    return Refusal(status_code=status, code=_text(members, "errorCode"), message=_text(members, "errorMessage"))


def _members(payload: bytes) -> dict[str, object]:
    try:
        return strict_json.decode_object(payload, size_bytes_max=ANSWER_SIZE_BYTES_MAX, depth_max=3)
    except strict_json.MalformedJson as error:
        raise MalformedAnswer(str(error)) from None


def _text(members: Mapping[str, object], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedAnswer(f"{name} must be a text.")
    return value
