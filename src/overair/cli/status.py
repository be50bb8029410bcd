"""``overair status``: what the server is, who may sign, and what a thief of it could do."""

from __future__ import annotations

from typing import Any

from rich.padding import Padding
from rich.text import Text

from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json


def status(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Say what runs, who signs, how keys rest, and how many devices are where."""
    with told_plainly():
        operator = operator_of(data)
        told = operator.client("overair").describe_server()
    document = {
        "version": told["version"],
        "account": told["account"],
        "region": told["region"],
        "started_at": told["startedAt"],
        "operator_url": operator.endpoints.operator_url,
        "things": told["things"],
        "connected": told["connected"],
        "open_jobs": told["openJobs"],
        "image_signing": {
            "level": told["imageSigning"]["level"],
            "profiles": [
                {"name": profile["name"], "status": profile["status"], "testing_only": profile["testingOnly"]}
                for profile in told["imageSigning"]["profiles"]
            ],
        },
        "provisioning": {
            "level": told["provisioning"]["level"],
            "shared_provisioning": told["provisioning"]["sharedProvisioning"],
            "credentials_usable": told["provisioning"]["credentialsUsable"],
            "fleet_authorities": told["provisioning"]["fleetAuthorities"],
        },
        "metadata_signing": {
            "level": told["metadataSigning"]["level"],
            "root_version": told["metadataSigning"]["rootVersion"],
            "targets_version": told["metadataSigning"]["targetsVersion"],
            "director_root_version": told["metadataSigning"]["directorRootVersion"],
            "pending_images": told["metadataSigning"]["pendingImages"],
            "devices_behind_root": told["metadataSigning"]["devicesBehindRoot"],
            "expiries": [
                {
                    "repository": expiry["repository"],
                    "role": expiry["role"],
                    "version": expiry["version"],
                    "expires": expiry["expires"],
                    "online": expiry["online"],
                    "alarm_days": expiry.get("alarmDays"),
                }
                for expiry in told["metadataSigning"]["expiries"]
            ],
        },
        "keys_at_rest": told["keysAtRest"],
        "failing_workers": list(told["failingWorkers"]),
        "warnings": list(told["warnings"]),
    }
    if json:
        print_json(document)
        return
    _print(document)


def _print(document: dict[str, Any]) -> None:
    console.print(
        f"Overair {document['version']}, account {document['account']} in {document['region']}, "
        f"up since {document['started_at']}",
        soft_wrap=True,
    )
    console.print(f"  operators  {document['operator_url']}", soft_wrap=True)
    console.print(f"  devices    {document['connected']} connected of {document['things']}; {document['open_jobs']} jobs open")
    signing = document["image_signing"]
    profiles = ", ".join(
        profile["name"] + (" (testing only)" if profile["testing_only"] else "") for profile in signing["profiles"]
    )
    console.print(f"  signing    {signing['level']}{': ' + profiles if profiles else ''}", soft_wrap=True)
    made_by = document["provisioning"]
    console.print(f"  joining    {_who_makes_devices(made_by)}", soft_wrap=True)
    console.print(f"  metadata   {_who_signs_metadata(document['metadata_signing'])}", soft_wrap=True)
    at_rest = "wrapped by a passphrase" if document["keys_at_rest"] == "passphrase" else "wrapped by a key file beside them"
    console.print(f"  keys       {at_rest}")
    for warning in document["warnings"]:
        console.print(Padding(Text(f"! {warning}", style="yellow"), (0, 0, 0, 2)))


def _who_makes_devices(provisioning: dict[str, Any]) -> str:
    own = f"{provisioning['fleet_authorities']} fleet authorities of your own"
    if not provisioning["shared_provisioning"]:
        return f"production level: {own} alone"
    return f"default level: by this server, {provisioning['credentials_usable']} shared credentials usable; {own}"


def _who_signs_metadata(signing: dict[str, Any]) -> str:
    keys = {
        "default": "default level: all keys on this server",
        "production": "production level: root and targets are signed elsewhere",
        "mixed": "mixed: of root and targets, one is signed elsewhere",
    }[signing["level"]]
    return (
        f"{keys}; Image root {signing['root_version']}, targets {signing['targets_version']}, "
        f"Director root {signing['director_root_version']}"
    )
