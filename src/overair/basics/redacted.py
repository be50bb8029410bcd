"""A secret that never prints."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Redacted(Generic[T]):
    """Holds a secret so that logs, tracebacks and reprs show nothing; ``reveal`` is the one way to it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: T) -> None:
        self._secret = secret

    def reveal(self) -> T:
        """The secret itself. Each call stands in a reviewed line."""
        return self._secret

    def __repr__(self) -> str:
        return "Redacted(…)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A Redacted value is never serialised.")
