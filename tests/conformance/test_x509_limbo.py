"""x509-limbo: the checker of devices' chains over the collection's cases, for the purpose that those have.

The cases are of servers, and in them host names count; a device's one name is no host's, so names aren't asked for here. What
is judged otherwise than in the collection stands in ``DIFFERENCES`` with its reason.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.clock import from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.certificates.x509 import not_before
from overair.server.provisioning.certificate_paths import Anchor, PathRefused, PresentedChain, authority_id, verify_path
from overair.server.provisioning.revocation_lists import read_revocation_list
from tests.support.vectors import vectors

CASES: Final[dict[str, dict[str, Any]]] = {
    case["id"]: case for case in json.loads((vectors("x509-limbo") / "limbo-subset.json").read_text())["testcases"]
}

_DEPTH = "the case sets a limit of its own; here five certificates may stand above a device's own"
_HOST = "the rule is about host names in a subject alternative name, which name no device"
_WEB = "a rule of the web's authorities (CA/Browser Forum), not of RFC 5280; fleets' own authorities don't keep it"
DIFFERENCES: Final = {
    "crl::issuer-no-keyusage-extension": (
        "an authority must say what its key is for: RFC 5280 §4.2.1.3 asks it of every authority, and so did the product"
    ),
    "pathlen::max-chain-depth-0-exhausted": _DEPTH,
    "pathlen::max-chain-depth-1-exhausted": _DEPTH,
    "pathlen::validation-ignores-pathlen-in-leaf": "a device's certificate must not be an authority's",
    "rfc5280::eku::ee-without-eku": "a device's certificate must say its purpose: one for anything isn't one for a device",
    "rfc5280::san::ip-in-dns": _HOST,
    "rfc5280::san::noncritical-with-empty-subject": "refused a step later: without a subject there is no common name",
    "rfc5280::san::underscore-dns": _HOST,
    "rfc5280::validity::notafter-fractional": "a certificate ends at the moment that it names, not within the second after it",
    "webpki::eku::ee-anyeku": _WEB,
    "webpki::eku::ee-critical-eku": _WEB,
    "webpki::eku::root-has-eku": _WEB,
}
"""Each case that is judged otherwise here, and why."""

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


def der(pem: str) -> bytes:
    """As it stands there, readable or not."""
    return base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-----")))


def refusal(case: dict[str, Any]) -> str:
    """Why a case's chain isn't believed; empty where it is."""
    roots = [x509.load_pem_x509_certificate(pem.encode()) for pem in case["trusted_certs"]]
    try:
        chain = PresentedChain.read(der(case["peer_certificate"]), [der(pem) for pem in case["untrusted_intermediates"]])
        issuers = [*roots, *chain.others]
        # Where a case names no moment, any does at which all of its certificates hold.
        given = case["validation_time"]
        now = from_datetime(datetime.fromisoformat(given)) if given else max(map(not_before, (chain.leaf, *issuers)))
        anchors = [Anchor(authority_id(root), root) for root in roots]
        path = verify_path(chain, anchors, now=now, purpose=ExtendedKeyUsageOID.SERVER_AUTH)
        names = {issuer.subject for issuer in issuers}
        for pem in case["crls"]:
            if x509.load_pem_x509_crl(pem.encode()).issuer in names:
                listed = read_revocation_list(pem.encode(), issuers, now=now)
                if any(link.issuer == listed.issuer and link.serial_number in listed.serial_numbers for link in path.links):
                    return "its serial number is on the list"
    except (PathRefused, InvalidRequest) as refused:
        return refused.message
    return ""


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_judged_as_the_collection_says_or_a_reason_is_named(name: str) -> None:
    why = refusal(CASES[name])
    agrees = (why == "") is (CASES[name]["expected_result"] == "SUCCESS")
    assert agrees is (name not in DIFFERENCES), why or "believed"


def test_only_one_important_case_is_judged_otherwise() -> None:
    important = {name for name, case in CASES.items() if case["importance"] in ("high", "critical")}
    assert len(important) == 14
    assert important & DIFFERENCES.keys() == {"crl::issuer-no-keyusage-extension"}


def test_every_difference_is_of_a_case_that_is_there() -> None:
    assert DIFFERENCES.keys() <= CASES.keys()
    assert all(DIFFERENCES.values())
