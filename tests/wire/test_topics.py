from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overair.wire.topics import SubscriptionTrie, is_valid_filter, is_valid_topic, matches

LEVEL = st.sampled_from(["a", "b", "", "$aws", "é"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)
FILTER = (
    st.tuples(st.lists(st.one_of(LEVEL, st.just("+")), min_size=0, max_size=5), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join([*parts[0], *parts[1]]))
    .filter(bool)
)


@given(filters=st.lists(FILTER, max_size=8, unique=True), topic=TOPIC, parent_level=st.booleans())
def test_the_trie_finds_exactly_what_matching_one_by_one_finds(filters: list[str], topic: str, parent_level: bool) -> None:
    trie: SubscriptionTrie[str, None] = SubscriptionTrie(parent_level=parent_level)
    for each in filters:
        assert is_valid_filter(each)
        trie.add(each, each, None)
    expected = sorted(each for each in filters if matches(each, topic, parent_level=parent_level))
    assert sorted(key for key, _ in trie.match(topic)) == expected


@given(filters=st.lists(FILTER, max_size=8), topic=TOPIC)
def test_a_trie_that_lost_all_subscriptions_holds_nothing(filters: list[str], topic: str) -> None:
    trie: SubscriptionTrie[int, None] = SubscriptionTrie()
    for number, each in enumerate(filters):
        trie.add(each, number, None)
    for number, each in enumerate(filters):
        trie.remove(each, number)
        trie.remove(each, number)
    assert not trie
    assert list(trie.match(topic)) == []


@given(text=st.text(alphabet=st.sampled_from("a/+#$\x00\x7f\ufffeé"), max_size=8))
def test_a_valid_topic_is_a_valid_filter_that_matches_itself(text: str) -> None:
    if is_valid_topic(text):
        assert is_valid_filter(text)
        assert matches(text, text)
        assert matches(text, text, parent_level=False)
