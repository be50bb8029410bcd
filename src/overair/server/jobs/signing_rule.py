"""A group may refuse images that weren't signed away from the server: asked when a job is made, when it is given to a thing,
and when somebody puts a thing into a group (docs/signing.md)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, GroupName, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.documents import DOCUMENT_DEPTH_MAX
from overair.server.jobs.model import DOCUMENT_SIZE_BYTES_MAX, Job
from overair.server.jobs.ports import JobMembers, JobStore
from overair.wire.strict_json import decode

REMEDY: Final = "Sign it with `overair sign image` and send it with `overair ship --signature`, or leave that group out."


class SigningRule:
    """Who may be given which job, as far as groups ask for images that were signed elsewhere."""

    def __init__(self, *, jobs: JobStore, members: JobMembers) -> None:
        self._jobs = jobs
        self._members = members

    def require(self, tx: Tx, place: Place, targets: Sequence[str], *, why: str) -> None:
        """Refuse images that this server, or nobody, signed, for a target that is under a rule.

        Args:
            why: What is wrong with them, as a clause.

        Raises:
            InvalidRequest: naming the target and the group. Subject ``target``.
        """
        for target in targets:
            group = self._members.signing_rule_over(tx, place.account, target)
            if group is not None:
                raise InvalidRequest(
                    f"{target} has to do with thing group {group}, which takes only images that were signed away from this "
                    f"server; {why}. {REMEDY}",
                    subject="target",
                )

    def require_for_document(self, tx: Tx, place: Place, targets: Sequence[str], document: str) -> None:
        """The same for a job whose images nobody has looked at. One that brings none may go to anybody."""
        if brings_images(document):
            self.require(tx, place, targets, why="whose signatures the images of this job's document bear isn't known here")

    def admitted(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> Sequence[ThingName]:
        """Those of some things that may be given this job."""
        if job.offline_signed or not things:
            return things
        account = job.place.account
        ruled = self._members.under_signing_rule(tx, account, things)
        if not ruled or not self._brings_images(tx, account, job.id):
            return things
        return [thing for thing in things if thing not in ruled]

    def require_may_join(self, tx: Tx, account: AccountId, thing: ThingName, groups: Collection[GroupName]) -> None:
        """A thing has just come into these groups (``devices.ports.MembershipGuard``).

        Raises:
            InvalidRequest: it is under a rule, and a job that follows one of them brings other images. Subject ``thing``.
        """
        if thing not in self._members.under_signing_rule(tx, account, [thing]):
            return
        for group in sorted(groups):
            for job in self._jobs.continuous_for(tx, account, group):
                if not job.offline_signed and self._brings_images(tx, account, job.id):
                    raise InvalidRequest(
                        f"Thing {thing} would be in a group that takes only images that were signed away from this server, and "
                        f"the CONTINUOUS job {job.id} brings to thing group {group} what wasn't. Cancel that job, or leave the "
                        "thing out of one of the groups.",
                        subject="thing",
                    )

    def _brings_images(self, tx: Tx, account: AccountId, job: JobId) -> bool:
        return brings_images(self._jobs.document(tx, account, job) or "")


def brings_images(document: str) -> bool:
    """Whether a document (which ``check_document`` let through) has agents fetch files: whether it has an ``afr_ota`` block."""
    if "afr_ota" not in document and "\\u" not in document:
        return False
    value = decode(document.encode(), size_bytes_max=DOCUMENT_SIZE_BYTES_MAX, depth_max=DOCUMENT_DEPTH_MAX)
    return isinstance(value, dict) and "afr_ota" in value
