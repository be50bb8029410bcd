"""The saga's steps, by name, in order: the one table. ``saga.py`` says what each does. Pure.

A step is one unit of work: what it makes and the name of the next step are committed together, so that a process cut after
any commit goes on with exactly the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Step(StrEnum):
    """A step's name, as stored, and as told to whoever cuts the process after its commit (``after_step``)."""

    ACCEPT = "update.accept"
    """The call itself: the update with every id it will use. ``CREATE_PENDING``."""
    ASSUME_ROLE = "update.assume-role"
    """The service role can be assumed and may read the sources. ``CREATE_IN_PROGRESS``."""
    PUT_PROFILES = "update.put-profiles"
    """Signing profiles asked for inline are made; named ones are there."""
    START_SIGNING = "update.start-signing"
    """Each file that is to be signed has its signing job, found again by its token."""
    AWAIT_SIGNING = "update.await-signing"
    """Every signing job has succeeded, and its signature is kept."""
    DELIVER = "update.deliver"
    """The raw image stands under the signed key as its newer version (wire reference §6.5); sizes are known."""
    CREATE_STREAM = "update.create-stream"
    """The stream is there, unless the operator made one or MQTT isn't asked for."""
    CREATE_JOB = "update.create-job"
    """The job is there, with the document that devices read."""
    COMPLETE = "update.complete"
    """``CREATE_COMPLETE``."""


NEXT: Final[Mapping[Step, Step]] = {
    Step.ACCEPT: Step.ASSUME_ROLE,
    Step.ASSUME_ROLE: Step.PUT_PROFILES,
    Step.PUT_PROFILES: Step.START_SIGNING,
    Step.START_SIGNING: Step.AWAIT_SIGNING,
    Step.AWAIT_SIGNING: Step.DELIVER,
    Step.DELIVER: Step.CREATE_STREAM,
    Step.CREATE_STREAM: Step.CREATE_JOB,
    Step.CREATE_JOB: Step.COMPLETE,
}
"""What follows a step; nothing follows ``COMPLETE``."""
