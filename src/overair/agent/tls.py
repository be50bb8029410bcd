"""Whom a device believes on the other side of a TLS connection."""

from __future__ import annotations

import ssl
from pathlib import Path


def tls_context(
    ca_file: Path | None, *, certificate_file: Path | None = None, private_key_file: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.2 or newer that trusts this CA file and nothing else (None: whoever the system trusts).

    The server's certificate must be for servers and carry the host's name or address as such: a common name counts for nothing,
    since authorities put there what their customers like.

    Raises:
        OSError: a file can't be read (``ssl.SSLError`` where it isn't what it should be).
    """
    context = ssl.create_default_context() if ca_file is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    if certificate_file is not None:
        context.load_cert_chain(certificate_file, private_key_file)
    return context
