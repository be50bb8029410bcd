"""``overair credentials claim``: what a batch of devices shares until each has an identity of its own."""

from __future__ import annotations

import json as json_text
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from cryptography.hazmat.primitives import serialization

from overair.agent.claim_folder import CA_FILE, CERTIFICATE_FILE, KEY_FILE, TRUST_FOLDER, claim_file_text
from overair.agent.durable import Disk
from overair.agent.uptane.identity import new_private_key, signing_request
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.wire.fleet_provisioning import claim_policy

POLICY_PREFIX: Final = "overair-factory-claim-"


def claim(
    out: Annotated[Path, typer.Option(help="The folder to write; it mustn't be there yet.")],
    template: Annotated[str, typer.Option(help="The provisioning template that its devices come in by.")],
    temporary: Annotated[
        bool,
        typer.Option("--temporary", help="Good for five minutes, as a trusted user's is; else until it is ended."),
    ] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Make a claim: a folder that devices come in with by a provisioning template (overair-device provision)."""
    with told_plainly(), ExitStack() as undone:
        try:
            out.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise CommandEnded(ExitCode.USAGE, f"{out} is there already. Choose another name for --out.") from None
        except OSError as error:
            raise CommandEnded(ExitCode.USAGE, f"{out} can't be made: {error.strerror}.") from error
        undone.callback(shutil.rmtree, out)
        operator = operator_of(data)
        iot = operator.client("iot")
        made = _temporary(iot, template) if temporary else _lasting(operator, iot, template, undone)
        _write(operator, out, template, made)
        undone.pop_all()
    if json:
        told = {"directory": str(out), "template": template, "certificate_id": made.certificate_id, "expires_at": made.ends}
        print_json(told)
        return
    console.print(
        f"{out} lets devices in by the template {template}{f' until {made.ends}' if made.ends else ''}.", soft_wrap=True
    )
    console.print("  Whoever has it can make such devices: keep it off images that others can read.", soft_wrap=True)
    console.print(f"  overair-device provision DIR --claim {out} --parameter NAME=VALUE", soft_wrap=True)
    if not temporary:
        ending = f"aws iot update-certificate --certificate-id {made.certificate_id} --new-status INACTIVE"
        console.print(f"  {ending}     # ends it", soft_wrap=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    certificate_id: str
    certificate_pem: str
    key_pem: Redacted[str]
    ends: str | None
    """When it ends by itself."""


def _temporary(iot: Any, template: str) -> _Claim:
    made = iot.create_provisioning_claim(templateName=template)
    return _Claim(
        certificate_id=made["certificateId"],
        certificate_pem=made["certificatePem"],
        key_pem=Redacted(made["keyPair"]["PrivateKey"]),
        ends=made["expiration"].isoformat(),
    )


def _lasting(operator: Operator, iot: Any, template: str, undone: ExitStack) -> _Claim:
    iot.describe_provisioning_template(templateName=template)
    policy = f"{POLICY_PREFIX}{template}"
    document = json_text.dumps(claim_policy(operator.endpoints.region, operator.endpoints.account, template))
    try:
        iot.create_policy(policyName=policy, policyDocument=document)
    except iot.exceptions.ResourceAlreadyExistsException:
        if json_text.loads(iot.get_policy(policyName=policy)["policyDocument"]) != json_text.loads(document):
            raise CommandEnded(
                ExitCode.REFUSED, f"There is a policy {policy} that says something else. Delete it, or make the claim with aws."
            ) from None
    key, key_pem = new_private_key()
    request = signing_request(f"claim for {template}", key, serialization.Encoding.PEM)
    issued = iot.create_certificate_from_csr(certificateSigningRequest=request.decode("ascii"), setAsActive=True)
    undone.callback(iot.delete_certificate, certificateId=issued["certificateId"], forceDelete=True)
    undone.callback(iot.update_certificate, certificateId=issued["certificateId"], newStatus="INACTIVE")
    iot.attach_policy(policyName=policy, target=issued["certificateArn"])
    return _Claim(
        certificate_id=issued["certificateId"],
        certificate_pem=issued["certificatePem"],
        key_pem=Redacted(key_pem.decode("ascii")),
        ends=None,
    )


def _write(operator: Operator, out: Path, template: str, made: _Claim) -> None:
    endpoints, disk = operator.endpoints, Disk()
    (out / TRUST_FOLDER).mkdir(mode=0o700)
    disk.write_whole(out / CERTIFICATE_FILE, made.certificate_pem.encode("ascii"), mode=0o644)
    disk.write_whole(out / KEY_FILE, made.key_pem.reveal().encode("ascii"), mode=0o600)
    disk.write_whole(out / CA_FILE, Path(endpoints.ca_file).read_bytes(), mode=0o644)
    disk.write_whole(out / TRUST_FOLDER / "signer.pem", Path(endpoints.signer_certificate_file).read_bytes(), mode=0o644)
    text = claim_file_text(host=endpoints.mqtt_host, port=endpoints.mqtt_port, template=template, gateway=endpoints.device_url)
    disk.write_whole(out / "claim.json", text, mode=0o644)
