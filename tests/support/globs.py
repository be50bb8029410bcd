"""A glob by two pointers: slow, obviously right, the oracle for the compiled patterns."""

from __future__ import annotations


def glob_matches(pattern: list[str], text: str) -> bool:
    """``pattern`` is a list of tokens: ``*``, ``?``, or ``=`` followed by one literal character."""
    at = token = 0
    star, resume = -1, 0
    while at < len(text):
        if token < len(pattern) and (pattern[token] == "?" or pattern[token] == "=" + text[at]):
            at, token = at + 1, token + 1
        elif token < len(pattern) and pattern[token] == "*":
            star, resume = token, at
            token += 1
        elif star >= 0:
            token, resume = star + 1, resume + 1
            at = resume
        else:
            return False
    return all(remaining == "*" for remaining in pattern[token:])
