"""The whole's checksum from those of its parts, against the checksum of the whole."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.server.aws_protocol.checksums import checksum
from overair.server.objects.checksums import composite, full_object_crc


def of(algorithm: str, data: bytes) -> str:
    running = checksum(algorithm)
    running.update(data)
    return base64.b64encode(running.digest()).decode()


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme"])
@given(parts=st.lists(st.binary(max_size=300), max_size=6))
def test_crcs_of_parts_combine_to_that_of_the_whole(algorithm: str, parts: list[bytes]) -> None:
    combined = full_object_crc(algorithm, [(of(algorithm, part), len(part)) for part in parts])
    assert combined == of(algorithm, b"".join(parts))


def test_a_composite_checksum_is_that_of_the_parts_checksums() -> None:
    parts = [b"a" * 10, b"b"]
    whole = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
    assert composite("sha256", [of("sha256", part) for part in parts]) == base64.b64encode(whole).decode() + "-2"
