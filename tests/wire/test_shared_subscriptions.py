from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.wire.shared_subscriptions import SharedFilter, filter_in, is_shared, read_shared


@pytest.mark.parametrize(
    "text", ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a", f"$share/{'é' * 65}/a"]
)
def test_what_names_no_group_or_no_filter_is_no_shared_subscription(text: str) -> None:
    assert is_shared(text)
    assert read_shared(text) is None
    assert filter_in(text) == text


@settings(max_examples=50, deadline=None)
@given(
    group=st.text(st.characters(exclude_characters="/+#", exclude_categories=["Cs"]), min_size=1, max_size=32),
    topic_filter=st.text(min_size=1, max_size=20),
)
def test_a_shared_subscription_has_a_group_and_a_filter(group: str, topic_filter: str) -> None:
    text = f"$share/{group}/{topic_filter}"
    assert read_shared(text) == SharedFilter(group, topic_filter)
    assert filter_in(text) == topic_filter
