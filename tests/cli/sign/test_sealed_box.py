"""Secrets at rest under a passphrase."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.basics.ids import RandomIds
from overair.basics.redacted import Redacted
from overair.cli.sign import sealed_box
from overair.cli.sign.ends import SignEnded, SignExit

WORDS = Redacted("four words in a row")


def _box(secret: bytes = b"a secret") -> bytes:
    return sealed_box.seal(Redacted(secret), WORDS, purpose="test", about={"name": "one"}, ids=RandomIds())


@given(st.binary(max_size=200))
@settings(max_examples=20)
def test_what_was_sealed_comes_out_again(secret: bytes) -> None:
    before, sealed_box.SCRYPT_N = sealed_box.SCRYPT_N, 2**4  # type: ignore[misc]
    try:
        box = _box(secret)
        assert sealed_box.open_box(box, WORDS, purpose="test", name="box").reveal() == secret
        assert sealed_box.read_about(box, purpose="test", name="box") == {"name": "one"}
    finally:
        sealed_box.SCRYPT_N = before  # type: ignore[misc]


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(SignEnded) as caught:
        sealed_box.open_box(_box(), Redacted("four other words here"), purpose="test", name="box")
    assert caught.value.code == SignExit.USAGE


def _members(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [path]
    return [found for name, member in value.items() for found in _members(member, (*path, name))]


def test_every_member_is_vouched_for() -> None:
    whole = json.loads(_box())
    for path in _members(whole):
        changed = json.loads(json.dumps(whole))
        place = changed
        for name in path[:-1]:
            place = place[name]
        value = place[path[-1]]
        if isinstance(value, int):
            place[path[-1]] = value * 2
        else:
            place[path[-1]] = ("B" if value[:1] != "B" else "C") + value[1:]
        with pytest.raises(SignEnded):
            sealed_box.open_box(json.dumps(changed).encode(), WORDS, purpose="test", name="box")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_box(data: bytes) -> None:
    with pytest.raises(SignEnded):
        sealed_box.open_box(data, WORDS, purpose="test", name="box")


def test_a_box_of_another_purpose_stays_shut() -> None:
    with pytest.raises(SignEnded):
        sealed_box.open_box(_box(), WORDS, purpose="backup", name="box")


def test_a_guess_costs_what_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (sealed_box.SCRYPT_N, sealed_box.SCRYPT_R, sealed_box.SCRYPT_P) == (2**17, 8, 1)
    assert json.loads(_box())["kdf"]["n"] == 2**17


def test_a_file_that_asks_for_too_much_memory_is_refused() -> None:
    greedy = json.loads(_box())
    greedy["kdf"]["n"] = 2**30
    with pytest.raises(SignEnded):
        sealed_box.open_box(json.dumps(greedy).encode(), WORDS, purpose="test", name="box")


def test_short_passphrases_protect_nothing_new() -> None:
    with pytest.raises(SignEnded, match="at least 12"):
        sealed_box.check_new_passphrase(Redacted("short"))
