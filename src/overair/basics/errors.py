"""Kinds of refusal: a small closed set, told in words for people.

A room raises a kind; a door looks up the code for its own plane in ``server/error_codes.py`` by (kind, subject). The message
says what happened, the rule, and what to do. Wrong use of our own API is not in here: that is a ``RuntimeError`` or a
failed assertion, which nobody should catch.
"""

from __future__ import annotations

from collections.abc import Mapping


class OverairError(Exception):
    """What every refusal shares.

    Attributes:
        message: For people: what happened, the rule, what to do.
        subject: What the refusal is about where one kind has several codes: ``"bucket"``, ``"key"``, ``"signature"``.
        details: Members that the wire's error shape may carry beside the message, such as ``resourceId``.
    """

    def __init__(self, message: str, *, subject: str = "", details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.details: Mapping[str, object] = details or {}


class InvalidRequest(OverairError):
    """The request breaks a rule that could be known before looking at any state."""


class NotFound(OverairError):
    """What the request names isn't there."""


class AlreadyExists(OverairError):
    """The name is taken. ``details`` carries ``resourceId`` and ``resourceArn`` where the wire has them."""


class VersionConflict(OverairError):
    """The expected version isn't the current one."""


class InvalidStateTransition(OverairError):
    """The table of states doesn't allow this step from here."""


class TerminalState(OverairError):
    """The thing asked about has already ended."""


class Conflict(OverairError):
    """Something else stands in the way: the resource is in use, or another request holds it."""


class LimitExceeded(OverairError):
    """A named limit was reached."""


class AccessDenied(OverairError):
    """Who is asking is known and may not do this."""


class NotAuthenticated(OverairError):
    """Who is asking could not be proved."""


class PreconditionFailed(OverairError):
    """A condition that the request itself stated doesn't hold."""


class Unsupported(OverairError):
    """A real operation that Overair doesn't have. Never answered with an empty success."""


class Throttled(OverairError):
    """Too many requests for now; the same one may pass later."""


class Unavailable(OverairError):
    """We can't serve this now through no fault of the asker: disk full, shutting down."""
