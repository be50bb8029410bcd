from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.image_signature import BadSignerCertificate
from overair.wire.trust_document import NAME, SERIAL_MAX, SIGNERS_MAX, MalformedTrust, build_trust, parse_trust, trusted_in
from tests.support.device import Signer

SIGNERS = [Signer().certificate_pem for _ in range(3)]
GOOD = build_trust("signer", 7, SIGNERS)
NAMES = st.from_regex(NAME, fullmatch=True)


@given(
    name=NAMES,
    serial=st.integers(1, SERIAL_MAX),
    signers=st.lists(st.sampled_from(SIGNERS), min_size=1, max_size=SIGNERS_MAX),
)
def test_a_document_is_read_back(name: str, serial: int, signers: list[bytes]) -> None:
    data = build_trust(name, serial, signers)
    document = parse_trust(data)
    assert (document.name, document.serial, len(document.signers)) == (name, serial, len(signers))
    assert trusted_in(data) == (serial, document.signers)


@given(data=st.one_of(st.binary(max_size=300), st.integers(0, len(GOOD) - 1).map(lambda end: GOOD[:end])))
def test_whatever_is_no_whole_document_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedTrust):
        parse_trust(data + b"!")
    with pytest.raises(BadSignerCertificate):
        trusted_in(b"Overair-Trust: " + data)


@pytest.mark.parametrize(
    "change",
    [
        (b"Overair-Trust: 1", b"Overair-Trust: 2"),
        (b"Name: signer", b"Name: ../signer"),
        (b"Name: signer", b"Name: signer.pem"),
        (b"Serial: 7", b"Serial: 07"),
        (b"Serial: 7", b"Serial: 0"),
        (b"Serial: 7", b"Serial: 9999999999999999"),
        (b"Serial: 7\n", b"Serial: 7\nMore: 1\n"),
    ],
)
def test_a_head_that_breaks_a_rule_is_refused(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(MalformedTrust):
        parse_trust(GOOD.replace(*change))


def test_nobody_and_too_many_are_refused() -> None:
    for signers in ([], SIGNERS * 3):
        with pytest.raises(MalformedTrust):
            build_trust("signer", 1, signers)
    with pytest.raises(MalformedTrust):
        build_trust("signer", 1, [b"no certificate"])
    with pytest.raises(MalformedTrust):
        build_trust("sign er", 1, SIGNERS)
