"""How a command of ``overair sign`` ends: the codes that signing tools are asked for (Uptane reference §9.6).

They differ from the other commands' (``cli.ends``) on purpose: a ceremony's script must tell "somebody was quicker" and
"a signature is missing" from a refusal.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from overair.basics.errors import OverairError
from overair.cli.ends import CommandEnded
from overair.cli.output import print_json
from overair.wire.uptane.refusals import MetadataRefused


class SignExit(enum.IntEnum):
    """What the exit status of ``overair sign …`` means."""

    DONE = 0
    USAGE = 1
    """The command line, a file that was named or a passphrase is wrong; nothing was changed."""
    STALE = 2
    """Somebody else published in between, and both changed the same thing."""
    SIGNATURE_MISSING = 3
    """What could be signed here is signed; a request for the others lies ready."""
    REFUSED = 4
    """By the server, or here, since a client would refuse it."""
    UNREACHABLE = 5


class SignEnded(CommandEnded):
    """Ends a command of ``overair sign``. ``details`` goes into the document of ``--json``."""

    def __init__(self, code: SignExit, message: str = "", *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(code, message)
        self.details: Mapping[str, object] = details or {}


def usage(message: str) -> SignEnded:
    return SignEnded(SignExit.USAGE, message)


def refused(message: str, *, details: Mapping[str, object] | None = None) -> SignEnded:
    return SignEnded(SignExit.REFUSED, message, details=details)


@contextmanager
def ending(as_json: bool) -> Iterator[None]:
    """Round a whole command: refusals of the wire become an end of ours; with ``--json`` an end is a document as well."""
    try:
        with told_plainly():
            yield
    except SignEnded as end:
        if as_json:
            print_json({"error": {"code": SignExit(end.code).name.lower(), "message": end.message, **end.details}})
        raise


@contextmanager
def told_plainly() -> Iterator[None]:
    """Refusals of the wire become one line and the code for a refusal."""
    try:
        yield
    except MetadataRefused as error:
        where = f" ({error.field})" if error.field else ""
        raise refused(f"{error.reason.value}: {error.message}{where}", details={"reason": error.reason.value}) from error
    except OverairError as error:
        raise refused(error.message) from error
