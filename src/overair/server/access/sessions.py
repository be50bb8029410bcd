"""Taking on a role: temporary keys with a token, for as long as was asked and the role allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from overair.basics.arn import parse_arn
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import ALPHANUMERIC, UPPER_AND_DIGITS, AccessKeyId, IdSource
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.access.grants import GrantsDirectory, compiled, principal_of
from overair.server.access.identities import SECRET_ALPHABET, SECRET_LENGTH
from overair.server.access.keys import seal
from overair.server.access.model import (
    CHAINED_SESSION_S_MAX,
    SESSION_POLICIES_MAX,
    SESSION_S_DEFAULT,
    SESSION_S_MIN,
    NewKeys,
    Role,
    Session,
)
from overair.server.access.service import as_principal, denied, granted_by_resource
from overair.server.access.stores import IdentityStore, SecretBox
from overair.server.aws_protocol.operations import Caller
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind, parse_policy
from overair.server.policy_language.evaluation import Decision, Principal, Question, evaluate_for

TOKEN_LENGTH: Final = 128
EXPIRED_KEPT_MS: Final = 24 * 3_600_000
"""An expired session answers "expired" for a day, then its key is unknown."""
_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """The answer of AssumeRole."""

    role: Role
    session_name: str
    keys: NewKeys
    session_arn: str
    role_session_id: str


class Sessions:
    """Sessions of roles, taken on by users and by other sessions."""

    def __init__(self, store: IdentityStore, grants: GrantsDirectory, box: SecretBox, *, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._grants = grants
        self._box = box
        self._clock = clock
        self._ids = ids

    def assume(
        self,
        tx: Tx,
        caller: Caller,
        role_arn: str,
        session_name: str,
        *,
        duration_s: int | None = None,
        policy_document: str | None = None,
        policy_arns: Sequence[str] = (),
        external_id: str | None = None,
    ) -> Assumed:
        """Take on a role of the caller's account.

        The role's trust policy must name the caller, or the account together with a policy of the caller's that allows
        ``sts:AssumeRole``. The account's root counts as allowed by itself, so that the first operator can take on what he made.

        Raises:
            InvalidRequest: session name, duration, managed policies (subject ``sts-input``) or policy (``policy``).
            AccessDenied: no such role, or not allowed.
        """
        if not _SESSION_NAME.fullmatch(session_name):
            raise InvalidRequest("RoleSessionName has 2 to 64 letters, digits and characters of +=,.@_-", subject="sts-input")
        if policy_document is not None:
            parse_policy(policy_document, Kind.SESSION)
        role = self._trusted(tx, caller, role_arn, session_name, external_id)
        self._check_policies(tx, caller, policy_arns)
        seconds = SESSION_S_DEFAULT if duration_s is None else duration_s
        if not SESSION_S_MIN <= seconds <= role.session_s_max:
            raise InvalidRequest(
                f"The requested DurationSeconds must be {SESSION_S_MIN} to the MaxSessionDuration set for this role, "
                f"{role.session_s_max}.",
                subject="sts-input",
            )
        if caller.session_name and seconds > CHAINED_SESSION_S_MAX:
            raise InvalidRequest(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
                subject="sts-input",
            )
        now = self._clock.now()
        expires = Instant(now + seconds * 1000)
        self._store.delete_sessions_before(tx, caller.account, Instant(now - EXPIRED_KEPT_MS))
        key_id = AccessKeyId("ASIA" + self._ids.token(16, UPPER_AND_DIGITS))
        secret = Redacted(self._ids.token(SECRET_LENGTH, SECRET_ALPHABET))
        token = Redacted(self._ids.token(TOKEN_LENGTH, ALPHANUMERIC))
        self._store.add_session(
            tx,
            Session(
                account=caller.account,
                key_id=key_id,
                role_name=role.name,
                session_name=session_name,
                expires=expires,
                created=now,
                sealed_secret=seal(self._box, caller.account, key_id, secret),
                token_sha256=sha256(token.reveal().encode("ascii")).hexdigest(),
                policy_document=policy_document,
                policy_arns=tuple(policy_arns),
            ),
        )
        return Assumed(
            role=role,
            session_name=session_name,
            keys=NewKeys(key_id=key_id, secret=secret, created=now, token=token, expires=expires),
            session_arn=f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{session_name}",
            role_session_id=f"{role.role_id}:{session_name}",
        )

    def _check_policies(self, tx: Tx, caller: Caller, arns: Sequence[str]) -> None:
        if len(arns) > SESSION_POLICIES_MAX:
            raise InvalidRequest(f"A session has at most {SESSION_POLICIES_MAX} managed policies.", subject="sts-input")
        for arn in arns:
            if not self._grants.managed(tx, caller.account, [arn]):
                raise InvalidRequest(f"PolicyArns: {arn[:200]} is no policy of this account.", subject="sts-input")

    def _trusted(self, tx: Tx, caller: Caller, role_arn: str, session_name: str, external_id: str | None) -> Role:
        arn = parse_arn(role_arn)
        is_ours = arn.service == "iam" and arn.account == caller.account and arn.kind == "role"
        role = self._store.find_role(tx, caller.account, arn.name.rpartition("/")[2]) if is_ours else None
        refusal = denied(caller.principal_arn, "sts:AssumeRole", role_arn, Decision.IMPLICIT_DENY)
        if role is None or role.arn != role_arn:
            raise refusal
        key = principal_of(caller)
        extra = {"sts:RoleSessionName": session_name} | ({} if external_id is None else {"sts:ExternalId": external_id})
        question = Question(action="sts:AssumeRole", resource=role.arn, context=context_of({**caller.context, **extra}))
        grants = None if key is None else self._grants.of(tx, key)
        own = Decision.ALLOW if grants is None else grants.decide(question)
        trust = [compiled(role.trust_document, Kind.TRUST)]
        principal = as_principal(caller)
        direct = granted_by_resource(trust, question, principal, grants)
        if Decision.EXPLICIT_DENY in (own, direct):
            raise denied(caller.principal_arn, "sts:AssumeRole", role_arn, Decision.EXPLICIT_DENY)
        # A trust policy that names the whole account leaves it to the account's own policies.
        through_account = evaluate_for(trust, question, Principal(account=principal.account, arns=principal.arns, is_root=True))
        if direct is not Decision.ALLOW and not (through_account is Decision.ALLOW and own is Decision.ALLOW):
            raise refusal
        return role
