"""Link keys: sealed in their own token, good for their own key id alone."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, RandomIds
from overair.basics.redacted import Redacted
from overair.server.access.link_keys import LINK_KEY_PREFIX, LinkKeys
from overair.server.access.model import AssumedRole
from overair.server.keyring.wrapping import SecretBox

ROLE = AssumedRole(
    place=Place("us-east-1", AccountId("123456789012")),
    role_arn="arn:aws:iam::123456789012:role/ota",
    role_name="ota",
    role_id="AROAEXAMPLE",
    session_arn="arn:aws:sts::123456789012:assumed-role/ota/iot",
    source_arn="arn:aws:iot:us-east-1:123456789012:job/j",
)


@pytest.fixture
def keys() -> LinkKeys:
    return LinkKeys(SecretBox(Redacted(b"k" * 32), RandomIds()), RandomIds())


def test_a_minted_key_comes_back_as_the_role_until_its_moment(keys: LinkKeys) -> None:
    minted = keys.mint(ROLE, expires=Instant(5_000))
    assert minted.access_key_id.startswith(LINK_KEY_PREFIX)
    opened = keys.open(minted.access_key_id, minted.session_token)
    assert opened is not None
    assert opened.secret.reveal() == minted.secret_access_key
    assert (opened.role_arn, opened.principal_arn, opened.user_id) == (ROLE.role_arn, ROLE.session_arn, "AROAEXAMPLE:iot")
    assert opened.expires == 5_000


def test_a_token_says_nothing_to_who_reads_it_and_is_short_enough_for_a_link(keys: LinkKeys) -> None:
    minted = keys.mint(ROLE, expires=Instant(5_000))
    assert minted.session_token is not None
    assert minted.secret_access_key not in minted.session_token
    assert len(minted.session_token) < 500


def test_a_token_of_another_key_or_another_server_opens_nothing(keys: LinkKeys) -> None:
    one, two = keys.mint(ROLE, expires=Instant(1)), keys.mint(ROLE, expires=Instant(1))
    stranger = LinkKeys(SecretBox(Redacted(b"s" * 32), RandomIds()), RandomIds())
    assert keys.open(one.access_key_id, two.session_token) is None
    assert stranger.open(one.access_key_id, one.session_token) is None


@pytest.mark.parametrize("token", [None, "", "AAAA", "not base64!", "ü", "A" * 2000])
def test_anything_else_opens_nothing(keys: LinkKeys, token: str | None) -> None:
    assert keys.open(keys.mint(ROLE, expires=Instant(1)).access_key_id, token) is None
