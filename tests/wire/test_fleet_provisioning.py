"""What devices say and read while they are provisioned."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.redacted import Redacted
from overair.wire.fleet_provisioning import (
    MalformedAnswer,
    encode_create_from_csr,
    encode_provision,
    parse_certificate,
    parse_provisioned,
    parse_refusal,
    provision_topic,
)

texts = st.text(min_size=1, max_size=40)


@given(identity=texts, pem=texts, token=texts)
def test_a_certificate_is_read_as_it_was_given(identity: str, pem: str, token: str) -> None:
    members = {"certificateId": identity, "certificatePem": pem, "certificateOwnershipToken": token, "later": [1]}
    given_certificate = parse_certificate(json.dumps(members).encode())
    assert (given_certificate.certificate_id, given_certificate.certificate_pem) == (identity, pem)
    assert given_certificate.ownership_token.reveal() == token


@given(thing=texts, configuration=st.dictionaries(texts, texts))
def test_a_thing_and_its_configuration_are_read_as_they_were_given(thing: str, configuration: dict[str, str]) -> None:
    provisioned = parse_provisioned(json.dumps({"thingName": thing, "deviceConfiguration": configuration}).encode())
    assert (provisioned.thing_name, provisioned.device_configuration) == (thing, configuration)


@given(data=st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), st.dictionaries(texts, texts)))
def test_anything_else_is_refused_as_malformed(data: bytes) -> None:
    for parse in (parse_certificate, parse_provisioned, parse_refusal):
        with pytest.raises(MalformedAnswer):
            parse(data)


@pytest.mark.parametrize(("status", "may_pass"), [(400, False), (403, False), (429, True), (500, True), (503, True)])
def test_asking_again_can_help_where_the_server_was_busy_or_at_fault(status: int, may_pass: bool) -> None:
    refusal = parse_refusal(json.dumps({"statusCode": status, "errorCode": "Code", "errorMessage": "Why."}).encode())
    assert (refusal.code, refusal.message, refusal.may_pass) == ("Code", "Why.", may_pass)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "x" * 37, "é"])
def test_what_can_not_be_a_templates_name_makes_no_topic(name: str) -> None:
    with pytest.raises(ValueError, match="name matches"):
        provision_topic(name)


def test_requests_have_the_members_of_the_wire() -> None:
    assert provision_topic("meters") == "$aws/provisioning-templates/meters/provision/json"
    assert json.loads(encode_create_from_csr("PEM")) == {"certificateSigningRequest": "PEM"}
    asked = json.loads(encode_provision(Redacted("token"), {"SerialNumber": "7"}))
    assert asked == {"certificateOwnershipToken": "token", "parameters": {"SerialNumber": "7"}}
