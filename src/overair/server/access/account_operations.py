"""The operator's door to the server's accounts (service ``overair``): open to the server's first account alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overair.basics.arn import Place
from overair.basics.errors import AccessDenied
from overair.basics.ids import AccountId
from overair.basics.redacted import Redacted
from overair.basics.work import Tx, Work
from overair.server.access.accounts import Accounts
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Furnished:
    """What a new account has from its start, and its operator must be told."""

    root_key_id: str
    root_secret: Redacted[str]
    signer_certificate_pem: str
    bucket: str
    role_arn: str
    profile: str


Furnish = Callable[[Tx, Place], Furnished]
"""Makes what an account has from its start; the composition root has it."""


class AccountOperations:
    """Making accounts, and saying which there are."""

    def __init__(self, *, work: Work, accounts: Accounts, home: AccountId, furnish: Furnish) -> None:
        """``home``: the account that the server's first start made."""
        self.work = work
        self.accounts = accounts
        self.home = home
        self.furnish = furnish

    @operation("overair", "CreateAccount")
    async def create_account(self, caller: Caller, request: Request) -> Members:
        self._require_home(caller, "CreateAccount")
        name = request.get("name", "")
        account = AccountId(request["accountId"]) if "accountId" in request else self.accounts.new_number()

        def make(tx: Tx) -> Furnished:
            self.accounts.require_new(tx, account, name=name)
            self.accounts.note(tx, account, name=name)
            return self.furnish(tx, Place(caller.place.region, account))

        made = await self.work.run(make)
        return {
            "accountId": account,
            "accessKeyId": made.root_key_id,
            "secretAccessKey": made.root_secret.reveal(),
            "signerCertificatePem": made.signer_certificate_pem,
            "bucket": made.bucket,
            "otaRoleArn": made.role_arn,
            "signingProfile": made.profile,
        }

    @operation("overair", "ListAccounts")
    async def list_accounts(self, caller: Caller, request: Request) -> Members:
        self._require_home(caller, "ListAccounts")
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = "" if position is None else position[0]
        found = await self.work.read(lambda tx: self.accounts.page(tx, after=after, limit=limit + 1))
        page, token = cut(found, limit, lambda known: (known.account,))
        shown = [
            {"accountId": each.account, "name": each.name, "createdAt": each.created, "isFirst": each.account == self.home}
            for each in page
        ]
        return {"accounts": shown, "nextToken": token}

    def _require_home(self, caller: Caller, name: str) -> None:
        if caller.account != self.home:
            raise AccessDenied(
                f"User: {caller.principal_arn} is not authorized to perform: overair:{name}: only the account that the server "
                "was started with knows of others.",
                subject="action",
                details={"action": f"overair:{name}", "resource": "*"},
            )
