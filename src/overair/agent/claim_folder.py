"""What a factory hands to a batch of devices: a claim, whom to trust, and where to ask.

::

    CLAIM/
      claim.json          {"format": 1, "host": "…", "port": 8883, "template": "…", "gateway": "https://…"}
      claim.pem           the claim's certificate
      claim.key           its key; 0600
      ca.pem              who the server's certificate must come from
      trust/NAME.pem      signers' certificates
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.agent.device_directory import BadDeviceDirectory
from overair.wire import strict_json

FORMAT: Final = 1
CLAIM_FILE: Final = "claim.json"
CERTIFICATE_FILE: Final = "claim.pem"
KEY_FILE: Final = "claim.key"
CA_FILE: Final = "ca.pem"
TRUST_FOLDER: Final = "trust"
CLAIM_FILE_SIZE_BYTES_MAX: Final = 16 * 1024
GATEWAY: Final = re.compile(r"https://[^\s/]{1,260}")
_HOST: Final = re.compile(r"[^\s/]{1,253}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFolder:
    """What ``claim.json`` says, and where the rest lies."""

    root: Path
    host: str
    port: int
    template: str
    gateway: str | None
    """Where devices renew their certificates, over HTTPS; None: nobody said."""

    @property
    def anchors(self) -> tuple[Path, ...]:
        """Signers' certificates."""
        return tuple(sorted((self.root / TRUST_FOLDER).glob("*.pem")))


def claim_file_text(*, host: str, port: int, template: str, gateway: str) -> bytes:
    """``claim.json``."""
    members = {"format": FORMAT, "host": host, "port": port, "template": template, "gateway": gateway}
    return json.dumps(members, indent=2).encode() + b"\n"


def read_claim_folder(root: Path) -> ClaimFolder:
    """Raises BadDeviceDirectory: there is none, or it breaks a rule."""
    path = root / CLAIM_FILE
    try:
        with path.open("rb") as file:
            data = file.read(CLAIM_FILE_SIZE_BYTES_MAX + 1)
        members = strict_json.decode_object(data, size_bytes_max=CLAIM_FILE_SIZE_BYTES_MAX, depth_max=1)
    except OSError as error:
        raise BadDeviceDirectory(
            f"{path} can't be read ({error.strerror}). Make a claim with: overair credentials claim --out DIR"
        ) from None
    except strict_json.MalformedJson as error:
        raise BadDeviceDirectory(f"{path}: {error}") from None
    if members.get("format") != FORMAT:
        raise BadDeviceDirectory(f"{path} has format {members.get('format')!r}; this program reads format {FORMAT}.")
    host, port, template = members.get("host"), members.get("port"), members.get("template")
    if not isinstance(host, str) or not _HOST.fullmatch(host) or type(port) is not int or not 1 <= port <= 65_535:
        raise BadDeviceDirectory(f"{path}: host must be a name or an address, and port a number from 1 to 65535.")
    if not isinstance(template, str):
        raise BadDeviceDirectory(f"{path}: template must be text.")
    gateway = members.get("gateway")
    if gateway is not None and not (isinstance(gateway, str) and GATEWAY.fullmatch(gateway)):
        raise BadDeviceDirectory(f"{path}: gateway must be an address that begins with https://.")
    return ClaimFolder(root=root, host=host, port=port, template=template, gateway=gateway)
