"""Vehicle manifests. Held: one is read or refused with a reason; read again it is the same; nobody's keys sign it; each
report's signed bytes stand in it, spelt as they are signed."""

from __future__ import annotations

import json

from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.manifest import ManifestRefused, read_manifest, verify_manifest
from overair.wire.uptane.refusals import MetadataRefused
from tests.fuzz.refusals import says_why


def fuzz_one(data: bytes) -> None:
    try:
        manifest = read_manifest(data)
    except MetadataRefused as refused:
        says_why(refused)
        return
    assert read_manifest(data) == manifest
    signed = json.loads(data)["signed"]
    assert canonical(signed) == manifest.signed_bytes
    again = read_manifest(json.dumps(json.loads(data)).encode())
    assert (again.primary, again.signed_bytes, again.signatures) == (
        manifest.primary,
        manifest.signed_bytes,
        manifest.signatures,
    )
    assert again.installed == manifest.installed
    for serial, report in manifest.reports.items():
        assert json.loads(report.signed_bytes)["ecu_serial"] == serial == report.report.ecu
    assert isinstance(verify_manifest(manifest, {}, primary=manifest.primary), ManifestRefused)
