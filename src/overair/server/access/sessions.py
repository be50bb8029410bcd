"""Taking on a role: temporary keys with a token, for as long as was asked and the role allows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from overair.basics.arn import parse_arn
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AccessDenied, InvalidRequest
from overair.basics.ids import ALPHANUMERIC, UPPER_AND_DIGITS, AccessKeyId, IdSource
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.access.grants import GrantsDirectory, compiled, principal_of
from overair.server.access.identities import SECRET_ALPHABET, SECRET_LENGTH, checked_tags
from overair.server.access.keys import seal
from overair.server.access.model import (
    CHAINED_SESSION_S_MAX,
    ROOT_SESSION_S_MAX,
    SESSION_POLICIES_MAX,
    SESSION_S_DEFAULT,
    SESSION_S_MIN,
    USER_SESSION_S_DEFAULT,
    USER_SESSION_S_MAX,
    NewKeys,
    Role,
    Session,
)
from overair.server.access.service import Values, as_principal, denied, granted_by_resource
from overair.server.access.stores import IdentityStore, SecretBox
from overair.server.aws_protocol.operations import Caller
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind, parse_policy
from overair.server.policy_language.evaluation import Decision, Principal, Question, evaluate_for

TEMPORARY: Final = "ASIA"
"""Begins the id of a key that is good for a time, with its token."""
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
        tags: Mapping[str, str] | None = None,
        transitive_keys: Sequence[str] = (),
    ) -> Assumed:
        """Take on a role of the caller's account.

        Tags of the session outweigh the role's (``aws:PrincipalTag/…``); giving any needs ``sts:TagSession`` beside
        ``sts:AssumeRole``, of the same policies. Those that are transitive go on to the roles that the session takes on.

        The role's trust policy must name the caller, or the account together with a policy of the caller's that allows
        ``sts:AssumeRole``. The account's root counts as allowed by itself, so that the first operator can take on what he made.

        Raises:
            InvalidRequest: session name, duration, managed policies, tags (subject ``sts-input``) or policy (``policy``).
            AccessDenied: no such role, or not allowed.
        """
        if not _SESSION_NAME.fullmatch(session_name):
            raise InvalidRequest("RoleSessionName has 2 to 64 letters, digits and characters of +=,.@_-", subject="sts-input")
        if policy_document is not None:
            parse_policy(policy_document, Kind.SESSION)
        given = tags or {}
        inherited = self._inherited(tx, caller)
        _check_tags(given, transitive_keys, inherited)
        role = self._trusted(
            tx, caller, role_arn, _session_context(session_name, external_id, given, transitive_keys), tagged=bool(given)
        )
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
        keys, session = self._make(tx, caller, seconds)
        self._store.add_session(
            tx,
            replace(
                session,
                role_name=role.name,
                session_name=session_name,
                policy_document=policy_document,
                policy_arns=tuple(policy_arns),
                tags={**inherited, **given},
                transitive_keys=tuple(dict.fromkeys([*inherited, *transitive_keys])),
            ),
        )
        return Assumed(
            role=role,
            session_name=session_name,
            keys=keys,
            session_arn=f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{session_name}",
            role_session_id=f"{role.role_id}:{session_name}",
        )

    def for_user(self, tx: Tx, caller: Caller, *, duration_s: int | None = None) -> NewKeys:
        """Temporary keys of the caller himself, who needs no permission for that.

        Raises:
            AccessDenied: he calls with temporary keys already.
            InvalidRequest: the duration. Subject ``sts-input``.
        """
        if caller.access_key_id.startswith(TEMPORARY):
            raise AccessDenied("Cannot call GetSessionToken with session credentials", subject="action")
        longest = ROOT_SESSION_S_MAX if caller.is_root else USER_SESSION_S_MAX
        seconds = min(USER_SESSION_S_DEFAULT, longest) if duration_s is None else duration_s
        if not SESSION_S_MIN <= seconds <= longest:
            raise InvalidRequest(f"DurationSeconds must be {SESSION_S_MIN} to {longest} here.", subject="sts-input")
        keys, session = self._make(tx, caller, seconds)
        user = "" if caller.is_root else parse_arn(caller.principal_arn).resource.rpartition("/")[2]
        self._store.add_session(tx, replace(session, user_name=user))
        return keys

    def _make(self, tx: Tx, caller: Caller, seconds: int) -> tuple[NewKeys, Session]:
        """Fresh keys, and the session that they are of, which is nobody's yet."""
        now = self._clock.now()
        expires = Instant(now + seconds * 1000)
        self._store.delete_sessions_before(tx, caller.account, Instant(now - EXPIRED_KEPT_MS))
        key_id = AccessKeyId(TEMPORARY + self._ids.token(16, UPPER_AND_DIGITS))
        secret = Redacted(self._ids.token(SECRET_LENGTH, SECRET_ALPHABET))
        token = Redacted(self._ids.token(TOKEN_LENGTH, ALPHANUMERIC))
        session = Session(
            account=caller.account,
            key_id=key_id,
            role_name="",
            session_name="",
            expires=expires,
            created=now,
            sealed_secret=seal(self._box, caller.account, key_id, secret),
            token_sha256=sha256(token.reveal().encode("ascii")).hexdigest(),
        )
        return NewKeys(key_id=key_id, secret=secret, created=now, token=token, expires=expires), session

    def _inherited(self, tx: Tx, caller: Caller) -> Mapping[str, str]:
        """The transitive tags of the session that asks, if it is one."""
        asking = self._store.session_by_id(tx, AccessKeyId(caller.access_key_id)) if caller.session_name else None
        return {} if asking is None else {key: asking.tags[key] for key in asking.transitive_keys}

    def _check_policies(self, tx: Tx, caller: Caller, arns: Sequence[str]) -> None:
        if len(arns) > SESSION_POLICIES_MAX:
            raise InvalidRequest(f"A session has at most {SESSION_POLICIES_MAX} managed policies.", subject="sts-input")
        for arn in arns:
            if not self._grants.managed(tx, caller.account, [arn]):
                raise InvalidRequest(f"PolicyArns: {arn[:200]} is no policy of this account.", subject="sts-input")

    def _trusted(self, tx: Tx, caller: Caller, role_arn: str, context: Values, *, tagged: bool) -> Role:
        """The role, if the caller may take it on, and tag the session where he does."""
        arn = parse_arn(role_arn)
        is_ours = arn.service == "iam" and arn.account == caller.account and arn.kind == "role"
        role = self._store.find_role(tx, caller.account, arn.name.rpartition("/")[2]) if is_ours else None
        if role is None or role.arn != role_arn:
            raise denied(caller.principal_arn, "sts:AssumeRole", role_arn, Decision.IMPLICIT_DENY)
        for action in ("sts:AssumeRole", "sts:TagSession") if tagged else ("sts:AssumeRole",):
            decision = self._decide(tx, caller, role, action, context)
            if decision is not Decision.ALLOW:
                raise denied(caller.principal_arn, action, role_arn, decision)
        return role

    def _decide(self, tx: Tx, caller: Caller, role: Role, action: str, context: Values) -> Decision:
        key = principal_of(caller)
        question = Question(action=action, resource=role.arn, context=context_of({**caller.context, **context}))
        grants = None if key is None else self._grants.of(tx, key)
        own = Decision.ALLOW if grants is None else grants.decide(question)
        trust = [compiled(role.trust_document, Kind.TRUST)]
        principal = as_principal(caller)
        direct = granted_by_resource(trust, question, principal, grants)
        if Decision.EXPLICIT_DENY in (own, direct):
            return Decision.EXPLICIT_DENY
        # A trust policy that names the whole account leaves it to the account's own policies.
        through_account = evaluate_for(trust, question, Principal(account=principal.account, arns=principal.arns, is_root=True))
        if direct is Decision.ALLOW or (through_account is Decision.ALLOW and own is Decision.ALLOW):
            return Decision.ALLOW
        return Decision.IMPLICIT_DENY


def _session_context(
    session_name: str, external_id: str | None, tags: Mapping[str, str], transitive_keys: Sequence[str]
) -> Values:
    """The condition keys that the request itself has."""
    context: dict[str, str | tuple[str, ...]] = {"sts:RoleSessionName": session_name}
    if external_id is not None:
        context["sts:ExternalId"] = external_id
    if tags:
        context |= {f"aws:RequestTag/{key}": value for key, value in tags.items()} | {"aws:TagKeys": tuple(tags)}
    if transitive_keys:
        context["sts:TransitiveTagKeys"] = tuple(transitive_keys)
    return context


def _check_tags(tags: Mapping[str, str], transitive_keys: Sequence[str], inherited: Mapping[str, str]) -> None:
    """Raises InvalidRequest, subject ``sts-input``: the tags break a rule, or one would change what is inherited."""
    try:
        checked_tags(tags)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, subject="sts-input") from None
    lower = {key.lower() for key in tags}
    if not {key.lower() for key in transitive_keys} <= lower:
        raise InvalidRequest("The specified transitive tag key must be included in the requested tags.", subject="sts-input")
    if lower & {key.lower() for key in inherited}:
        raise InvalidRequest(
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the "
            "calling session.",
            subject="sts-input",
        )
