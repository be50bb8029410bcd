from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.uptane.ecus import Ecu, EcuRegistration, read_registration, registration_body
from overair.wire.uptane.refusals import MetadataRefused, Reason
from tests.support.uptane_repository import KeyHolder

GATEWAY = Ecu(serial="a1b2", hardware_id="gw-imx8", key=KeyHolder().public_key)
DASH = Ecu(serial="dash-7", hardware_id="", key=KeyHolder(rsa.generate_private_key(65537, 2048)).public_key)


def test_a_registration_comes_back_as_it_was_written() -> None:
    data = registration_body("a1b2", [GATEWAY, DASH])
    assert read_registration(data) == EcuRegistration(primary="a1b2", ecus=(GATEWAY, DASH))


def test_what_aktualizr_posts_is_read() -> None:
    digits = GATEWAY.key.to_json()["keyval"]["public"].upper()  # type: ignore[index]
    key = {"keytype": "ED25519", "keyval": {"public": digits}}
    body = {"primary_ecu_serial": "a1b2", "ecus": [{"ecu_serial": "a1b2", "hardware_identifier": "gw-imx8", "clientKey": key}]}
    assert read_registration(json.dumps(body, indent=3).encode()).ecus == (GATEWAY,)


def rows(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    first = json.loads(registration_body("a1b2", [GATEWAY]))["ecus"][0]
    return [{**first, **change} for change in changes]


UNKNOWN = {"keytype": "unknown", "keyval": {"public": ""}}
SHORT = {"keytype": "ED25519", "keyval": {"public": "abc"}}
MALFORMED = Reason.INVALID_METADATA


@pytest.mark.parametrize(
    ("primary", "ecus", "reason", "field"),
    [
        ("other", rows({}), Reason.BAD_ECU_ID, "primary_ecu_serial"),
        ("a1b2", rows({}, {}), Reason.BAD_ECU_ID, "ecus[1].ecu_serial"),
        (None, rows({}), MALFORMED, "primary_ecu_serial"),
        ("", rows({}), MALFORMED, "primary_ecu_serial"),
        ("a1b2", None, MALFORMED, "ecus"),
        ("a1b2", [], MALFORMED, "ecus"),
        ("a1b2", [{}] * 257, MALFORMED, "ecus"),
        ("a1b2", ["x"], MALFORMED, "ecus[0]"),
        ("a1b2", rows({"ecu_serial": "x" * 65}), MALFORMED, "ecus[0].ecu_serial"),
        ("a1b2", rows({"hardware_identifier": "x" * 201}), MALFORMED, "ecus[0].hardware_identifier"),
        ("a1b2", rows({"hardware_identifier": None}), MALFORMED, "ecus[0].hardware_identifier"),
        ("a1b2", rows({"clientKey": UNKNOWN}), Reason.UNSUPPORTED_METHOD, "ecus[0].clientKey.keytype"),
        ("a1b2", rows({"clientKey": SHORT}), MALFORMED, "ecus[0].clientKey.keyval.public"),
        ("a1b2", rows({"clientKey": None}), MALFORMED, "ecus[0].clientKey"),
    ],
)
def test_a_registration_that_breaks_a_rule_is_refused_with_its_place(
    primary: str | None, ecus: object, reason: Reason, field: str
) -> None:
    body = {"primary_ecu_serial": primary, "ecus": ecus}
    with pytest.raises(MetadataRefused) as caught:
        read_registration(json.dumps(body).encode())
    assert (caught.value.reason, caught.value.field) == (reason, field)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_our_own_error_alone(data: bytes) -> None:
    with contextlib.suppress(MetadataRefused):
        read_registration(data)
