"""Was everything of an update signed away from this server? What isn't is told by name."""

from __future__ import annotations

from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.updates.model import CustomSigning, FinishedSigning, SigningToStart, UpdatePlan
from overair.server.updates.ports import HeldKeys


def why_not_offline_signed(tx: Tx, account: AccountId, plan: UpdatePlan, held: HeldKeys) -> str | None:
    """What keeps an update from counting as signed away from the server, as a clause; None: nothing does.

    A custom signature that came with its certificate is checked before anything is sent (``saga``), so that the certificate is
    known to be the signer's.
    """
    for file in plan.files:
        match file.signing:
            case None:
                return f"{file.name!r} is unsigned"
            case SigningToStart():
                return f"{file.name!r} is to be signed by this server, with the signing profile {file.signing.profile}"
            case FinishedSigning():
                return f"{file.name!r} was signed by this server, in the signing job {file.signing.job}"
            case CustomSigning(certificate_pem=None):
                return f"the signature of {file.name!r} came without its certificate, so that it can't be told whose it is"
            case CustomSigning(certificate_pem=str() as certificate) if held.holds_key_of(tx, account, certificate):
                return f"{file.name!r} is signed with a key that this server holds: its certificate was imported into ACM"
    return None
