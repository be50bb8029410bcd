"""Namespaces of jobs: on a thing, each has a queue, a ``$next`` and topics of its own.

AWS tells of them only that a job with a ``namespaceId`` is announced on topics that name it; the topics are those that its
Greengrass core software subscribes and publishes to. What isn't known otherwise is decided in ``docs/divergences.md``.
"""

from __future__ import annotations

import re
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.wire.job_messages import NAMESPACE_PREFIX

NAMESPACE: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_namespace(namespace: str, *, fulfilment: str | None) -> None:
    """Whether a job may be in it. ``fulfilment``: what the job brings to vehicles, if it does.

    Raises:
        InvalidRequest: no such name can be; or vehicles would have to look there. Subject ``namespace``.
    """
    if not NAMESPACE.fullmatch(namespace):
        raise InvalidRequest("A namespaceId has 1 to 64 of a-z, A-Z, 0-9, '_' and '-'.", subject="namespace")
    if fulfilment is not None:
        raise InvalidRequest(
            "A job that comes to vehicles by the Uptane Director can't be in a namespace: a vehicle looks nowhere else than in "
            "the queue that every device has. Leave namespaceId out.",
            subject="namespace",
        )


def namespace_of_level(level: str) -> str | None:
    """The namespace that a level of a topic names; None where it is no such level."""
    name = level.removeprefix(NAMESPACE_PREFIX)
    return name if level.startswith(NAMESPACE_PREFIX) and NAMESPACE.fullmatch(name) else None
