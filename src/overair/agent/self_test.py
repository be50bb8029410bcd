"""What to do with an execution that speaks of a self-test (wire reference §7.5): a pure decision."""

from __future__ import annotations

from enum import Enum, auto

from overair.agent.platform import PlatformImageState
from overair.wire.image import ImageManifest


class SelfTestVerdict(Enum):
    """The next step."""

    NOTHING = auto()
    """No self-test is under way on either side."""
    RUN = auto()
    """The image is on trial and newer than the one before: test it."""
    SAME_VERSION = auto()
    LOWER_VERSION = auto()
    STATE_MISMATCH = auto()
    """The server waits for a self-test, but this image isn't on trial: the new one failed and was rolled back."""
    ROLL_BACK = auto()
    """The image is on trial, but the server knows of no self-test."""


def judge(
    *,
    image_state: PlatformImageState,
    self_test: bool,
    updated_by: int | None,
    running: ImageManifest,
    is_firmware: bool,
    waiting: bool = False,
) -> SelfTestVerdict:
    """Decide from the platform's state and the execution's details.

    ``updated_by`` is the version word of the image that installed this one; it must be lower than the running one's, unless
    this image, by its own signed word, may replace a newer one. Only firmware is compared. ``waiting``: a verified image is
    here that was announced and, because of a power cut, never activated: it has yet to have its trial.
    """
    on_trial = image_state is PlatformImageState.PENDING_COMMIT
    if not self_test:
        return SelfTestVerdict.ROLL_BACK if on_trial else SelfTestVerdict.NOTHING
    if not on_trial:
        return SelfTestVerdict.NOTHING if waiting else SelfTestVerdict.STATE_MISMATCH
    if is_firmware and updated_by is not None and not running.allow_downgrade:
        if updated_by == running.version.word:
            return SelfTestVerdict.SAME_VERSION
        if updated_by > running.version.word:
            return SelfTestVerdict.LOWER_VERSION
    return SelfTestVerdict.RUN


def parse_version_word(text: str | None) -> int | None:
    """``updatedBy`` in C notation (``0x01000000``, or decimal); None where it is no such number."""
    if text is None:
        return None
    try:
        word = int(text, 16) if text[:2] in ("0x", "0X") else int(text, 10)
    except ValueError:
        return None
    return word if 0 <= word < 2**32 else None
