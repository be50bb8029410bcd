"""The signing platforms: what each device family verifies. One table (wire reference §6.2, §6.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from overair.basics.errors import InvalidRequest, NotFound
from overair.server.signing.model import Algorithm, Encryption, Hash, ImageFormat

IMAGE_SIZE_MEBIBYTES_MAX: Final = 4095
"""Agents count a file in 32 bits less one block (wire reference §5.1, ``filesize``); AWS stops at 16."""

_JSON: Final = (ImageFormat.JSON, ImageFormat.JSON_EMBEDDED, ImageFormat.JSON_DETACHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a platform lets a profile choose. The first of each is its default."""

    id: str
    display_name: str
    target: str
    encryptions: tuple[Encryption, ...]
    hashes: tuple[Hash, ...]
    image_formats: tuple[ImageFormat, ...] = _JSON
    partner: str = "AWSIoTDeviceManagement"
    category: str = "AWSIoT"

    @property
    def image_size_bytes_max(self) -> int:
        return IMAGE_SIZE_MEBIBYTES_MAX * 1024 * 1024


PLATFORMS: Final = {
    platform.id: platform
    for platform in (
        Platform(
            id="AWSIoTDeviceManagement-SHA256-ECDSA",
            display_name="AWS IoT Device Management SHA256-ECDSA",
            target="SHA256-ECDSA",
            encryptions=(Encryption.ECDSA, Encryption.RSA),
            hashes=(Hash.SHA256,),
        ),
        Platform(
            id="AmazonFreeRTOS-Default",
            display_name="Amazon FreeRTOS",
            target="AmazonFreeRTOS",
            partner="AmazonFreeRTOS",
            encryptions=(Encryption.ECDSA, Encryption.RSA),
            hashes=(Hash.SHA256,),
        ),
        # The only platform that may still use SHA-1: its boot ROM knows nothing else.
        Platform(
            id="AmazonFreeRTOS-TI-CC3220SF",
            display_name="Texas Instruments CC3220SF",
            target="CC3220SF",
            partner="TexasInstruments",
            encryptions=(Encryption.RSA,),
            hashes=(Hash.SHA1, Hash.SHA256),
        ),
    )
}


def platform_of(platform_id: str, *, asked_by_name: bool = False) -> Platform:
    """The platform of that id.

    Raises:
        NotFound: ``asked_by_name`` and there is none (GetSigningPlatform).
        InvalidRequest: there is none, and a profile wanted to use it.
    """
    platform = PLATFORMS.get(platform_id)
    if platform is not None:
        return platform
    message = f"There is no signing platform {platform_id[:80]!r}. Known: {', '.join(PLATFORMS)}."
    raise (
        NotFound(message, subject="signing platform") if asked_by_name else InvalidRequest(message, subject="signing platform")
    )


def choose_algorithm(platform: Platform, key: Encryption, *, encryption: Encryption | None, hash: Hash | None) -> Algorithm:
    """What signatures will be made with: the certificate's key decides the family, the override may only agree with it.

    Raises:
        InvalidRequest: the override contradicts the key, or the platform doesn't know the family or the hash.
    """
    if encryption is not None and encryption is not key:
        raise InvalidRequest(
            f"The profile asks for {encryption} but the certificate holds an {key} key. "
            "Leave encryptionAlgorithm out or use a certificate of that family.",
            subject="signing profile",
        )
    chosen = hash or platform.hashes[0]
    if key not in platform.encryptions or chosen not in platform.hashes:
        raise InvalidRequest(
            f"Platform {platform.id} verifies {' or '.join(platform.encryptions)} with {' or '.join(platform.hashes)}, "
            f"not {key} with {chosen}.",
            subject="signing profile",
        )
    return Algorithm(encryption=key, hash=chosen)
