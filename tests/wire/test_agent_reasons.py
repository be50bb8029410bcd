from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.agent_reasons import blocks_received, reason_in_words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("rejected: 0x0000000f", "rejected: the image is older than the one that runs, and downgrades aren't allowed"),
        ("rejected: 0x00000010", "rejected: the image has the same version as the one that runs"),
        ("aborted: 0x00000000", "aborted: the application gave no code"),
        ("0x000000e3: 0x00000000", "the image's signature does not verify"),
        ("0x0000000c: 0x00000004", "the job document could not be used: it is no OTA document, or a field is missing"),
        ("rejected: 0xe3000005", "rejected: the image's signature does not verify (detail 0x5)"),
        ("0x000000e8: 0x00000002", "the platform can't be in that image state (detail 0x2)"),
        ("rejected: 0x00000099", "rejected: code 0x99"),
        ("0x24000000: 5", "the job document could not be used: it is no OTA document, or a field is missing or malformed"),
        ("0x24000000: 99", "the job document could not be used (detail 0x63)"),
        ("0x01000000: 0", "the image's signature does not verify"),
        ("rejected: 0x22000000", "rejected: the image is older than the one that runs"),
        ("0x00000000: -1", "the application gave no code (detail -0x1)"),
    ],
)
def test_a_code_is_told_in_words_with_the_devices_own_text_behind(reason: str, words: str) -> None:
    told = reason_in_words(reason)
    assert told.startswith(words)
    assert told.endswith(f"[{reason}]")


def test_an_accepted_version_loses_its_double_blank() -> None:
    assert reason_in_words("accepted  v2.0.0") == "accepted version 2.0.0"


def test_a_file_that_was_stored_is_no_version_that_runs() -> None:
    assert reason_in_words("accepted  v0.0.1", updated_by="  v0.0.0") == "stored as a file of type 1 [accepted v0.0.1]"
    assert reason_in_words("accepted  v0.0.1", updated_by="  v0.0.9") == "accepted version 0.0.1"


@given(reason=st.text(max_size=200))
def test_any_text_is_told_somehow(reason: str) -> None:
    assert isinstance(reason_in_words(reason), str)


def test_a_count_of_blocks_is_read_and_anything_else_is_none() -> None:
    assert blocks_received({"receive": "64/256"}) == (64, 256)
    assert blocks_received({"receive": "64 of 256"}) is None
    assert blocks_received({}) is None
