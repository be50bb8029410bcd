"""Topic filters against topics. Input: filters and topics by turns, NUL between them.

Held: ``matches``, the trie of subscriptions and a matcher that is slow and obviously right say the same, as the standard and as
AWS has it; a filter that isn't valid is refused whatever stands in it.
"""

from __future__ import annotations

from overair.wire.topics import SubscriptionTrie, is_valid_filter, is_valid_topic, matches


def fuzz_one(data: bytes) -> None:
    texts = data.decode("utf-8", "surrogateescape").split("\0")[:40]
    filters = [text for text in texts[::2] if is_valid_filter(text)]
    topics = [text for text in texts[1::2] if is_valid_topic(text)]
    for text in texts:
        assert is_valid_filter(text) is by_the_standard(text), text
    for parent_level in (True, False):
        trie: SubscriptionTrie[int, str] = SubscriptionTrie(parent_level=parent_level)
        for number, topic_filter in enumerate(filters):
            trie.add(topic_filter, number, topic_filter)
        for topic in topics:
            expected = {
                number for number, each in enumerate(filters) if slowly(each.split("/"), topic.split("/"), parent_level)
            }
            plain = {number for number, each in enumerate(filters) if matches(each, topic, parent_level=parent_level)}
            assert plain == expected, (topic, filters, parent_level)
            assert {number for number, _ in trie.match(topic)} == expected, (topic, filters, parent_level)
        for number, topic_filter in enumerate(filters):
            trie.remove(topic_filter, number)
        assert not trie, "something is left in a trie that everything was taken out of"


def by_the_standard(text: str) -> bool:
    """Sections 1.5.3 and 4.7.1, clause by clause."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    if not 1 <= size <= 65_535:
        return False
    for character in text:
        code = ord(character)
        if code < 0x20 or 0x7F <= code <= 0x9F or 0xFDD0 <= code <= 0xFDEF or code in (0xFFFE, 0xFFFF):
            return False
    levels = text.split("/")
    for at, level in enumerate(levels):
        if "#" in level and (level != "#" or at != len(levels) - 1):
            return False
        if "+" in level and level != "+":
            return False
    return True


def slowly(wanted: list[str], levels: list[str], parent_level: bool, *, first: bool = True) -> bool:
    if not wanted:
        return not levels
    if first and levels and levels[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[0] == "#":
        return bool(levels) or parent_level
    if not levels or wanted[0] not in ("+", levels[0]):
        return False
    return slowly(wanted[1:], levels[1:], parent_level, first=False)
