"""``rest.operations.DeviceAuthenticator``: who is at the device door, by the certificates of the handshake."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import ThingName
from overair.basics.work import Tx, Work
from overair.server.certificates import x509
from overair.server.devices.authority import RegistryAuthority
from overair.server.gateway.authority import Refusal, RefusalCode
from overair.server.provisioning.model import CredentialState, SharedCredential
from overair.server.provisioning.service import Credentials
from overair.server.rest.operations import DeviceCaller, DeviceRefusal

_CODE: Final = RefusalCode

MESSAGES: Final = {
    _CODE.CERTIFICATE_UNREADABLE: ("A certificate of the handshake can't be read.", ""),
    _CODE.CERTIFICATE_UNKNOWN: ("The device's certificate isn't registered.", "Ask the operator to register it."),
    _CODE.FOREIGN_AUTHORITY: (
        "The device's certificate isn't registered, and no authority that is trusted here stands behind it.",
        "Send the intermediate certificates along, or ask the operator to register the fleet's root certificate.",
    ),
    _CODE.AUTHORITY_WITHDRAWN: ("The authority behind the device's certificate was withdrawn.", "Ask the operator."),
    _CODE.AUTHORITY_EXPIRED: ("An authority behind the device's certificate is past its end.", "Ask the operator."),
    _CODE.CHAIN_TOO_DEEP: ("The certificate chain is too deep: at most 5 certificates may stand above the device's own.", ""),
    _CODE.CHAIN_INVALID: ("The certificate chain breaks a rule of X.509 that is kept here.", "The server's log names it."),
    _CODE.EXPIRED: ("The device's certificate has expired.", "Give the device a new one."),
    _CODE.NOT_YET_VALID: ("The device's certificate isn't valid yet.", "Compare the clocks of its issuer and this server."),
    _CODE.WRONG_PURPOSE: (
        "The certificate isn't one for a device.",
        "It needs the key usage digitalSignature and the extended key usage clientAuth, and must not be an authority's.",
    ),
    _CODE.NO_COMMON_NAME: ("The certificate has no common name, which would be the device's id.", ""),
    _CODE.SEVERAL_COMMON_NAMES: ("The certificate has more than one common name; exactly one is the device's id.", ""),
    _CODE.COMMON_NAME_INVALID: (
        "The certificate's common name can't be a device's id.",
        "It must have 1 to 128 characters out of a-z, A-Z, 0-9, colon, underscore and hyphen.",
    ),
    _CODE.REVOKED: ("The device's certificate was revoked.", "Give the device a new one."),
    _CODE.INACTIVE: ("The device's certificate isn't active.", "Ask the operator to activate it."),
    _CODE.WITHOUT_THING: (
        "The certificate belongs to no thing, or to several.",
        "Attach it to its thing as EXCLUSIVE_THING.",
    ),
    _CODE.NOT_REGISTERED: (
        "No device of this name is registered, and the rule of its authority lets no unknown device in.",
        "Ask the operator to approve it.",
    ),
    _CODE.KEY_MISMATCH: (
        "Another key is bound to this device's name.",
        "Ask the operator to approve the new key if the device was made anew.",
    ),
    _CODE.AWAITS_APPROVAL: ("The device's new key awaits the operator's approval.", "Go on with the old one until then."),
    _CODE.BLOCKED: ("The device is blocked.", "Ask the operator."),
    _CODE.UNAVAILABLE: ("The device can't be registered now.", "The server's log has the reason. Try again later."),
}
"""What a device's owner is told, and what to do; the log has the particulars."""

_CREDENTIALS: Final = {
    CredentialState.REVOKED: "The shared provisioning credential was revoked.",
    CredentialState.EXPIRED: "The shared provisioning credential has expired.",
}

logger = structlog.get_logger("overair.provisioning")


class ProvisioningAuthenticator:
    """Registered certificates by the same memory as MQTT's, new ones by their authorities' rules, shared credentials by their
    fingerprints."""

    def __init__(
        self, *, work: Work, authority: RegistryAuthority, credentials: Credentials, clock: Clock, region: str
    ) -> None:
        self._work = work
        self._authority = authority
        self._credentials = credentials
        self._clock = clock
        self._region = region

    async def admit(
        self, chain_der: tuple[bytes, ...], source_ip: str, request_id: str, domain_name: str = ""
    ) -> DeviceCaller | DeviceRefusal:
        """See ``rest.operations.DeviceAuthenticator``."""
        verdict = await self._authority.admit(chain_der[0], None, None, source_ip, chain_der[1:], domain_name)
        if isinstance(verdict, Refusal):
            if verdict.code is RefusalCode.CREDENTIAL_NOT_ALLOWED_HERE:
                return await self._shared_credential(chain_der[0], source_ip, request_id)
            logger.info("device refused", code=verdict.code.value, why=verdict.reason, request_id=request_id)
            return replace(_refusal(verdict.code), place=verdict.place, certificate_id=verdict.certificate_id)
        if verdict.thing is None:
            why = f"certificate {verdict.certificate_id} is attached to no thing exclusively"
            logger.info("device refused", code=RefusalCode.WITHOUT_THING.value, why=why, request_id=request_id)
            return replace(_refusal(RefusalCode.WITHOUT_THING), place=verdict.place, certificate_id=verdict.certificate_id)
        return DeviceCaller(
            place=verdict.place,
            thing=verdict.thing,
            certificate_id=verdict.certificate_id,
            source_ip=source_ip,
            now=self._clock.now(),
            request_id=request_id,
            policy=verdict.policy,
        )

    async def _shared_credential(self, leaf_der: bytes, source_ip: str, request_id: str) -> DeviceCaller | DeviceRefusal:
        identity = x509.fingerprint_of_der(leaf_der)

        def recognise(tx: Tx) -> tuple[SharedCredential, bool] | None:
            found = self._credentials.recognise(tx, identity)
            return None if found is None else (found, self._credentials.may_be_used(tx, found.account))

        recognised = await self._work.read(recognise)
        if recognised is None:
            return _refusal(RefusalCode.CERTIFICATE_UNKNOWN)
        credential, is_on = recognised
        place = Place(self._region, credential.account)
        if not is_on:
            return DeviceRefusal(
                code="shared_provisioning_off",
                message="Shared provisioning is off here: this server makes no devices.",
                hint="Give the device a certificate of the fleet's own authority.",
                place=place,
                certificate_id=identity,
            )
        now = self._clock.now()
        state = credential.state(now)
        # One that has made its last device may still be asked by a device that lost the answer.
        if state in _CREDENTIALS:
            return DeviceRefusal(
                code=f"credential_{state.value}",
                message=_CREDENTIALS[state],
                hint="Ask the operator for a new one.",
                place=place,
                certificate_id=identity,
            )
        return DeviceCaller(
            place=place,
            thing=ThingName(""),
            certificate_id=identity,
            source_ip=source_ip,
            now=now,
            request_id=request_id,
            credential_id=credential.id,
        )


def _refusal(code: RefusalCode) -> DeviceRefusal:
    message, hint = MESSAGES[code]
    return DeviceRefusal(code=code.value, message=message, hint=hint)
