"""What every refusal owes to whoever is refused."""

from __future__ import annotations


def says_why(error: Exception, *, subject: str | None = None, answer: bytes | None = None) -> None:
    """It has words, and is filed under what it is about."""
    assert str(error), f"{type(error).__name__} says nothing"
    if subject is not None:
        assert getattr(error, "subject", None) == subject
    assert answer != b"", "there is no way to tell it"
