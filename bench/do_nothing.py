"""The least that an answer over our listeners can cost: an application that reads the body and says ``{}``.

``python -m bench.do_nothing CA_FILE TLS_PORT PLAIN_PORT`` runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.redacted import Redacted
from overair.server.listeners.acceptor import TlsListener, open_socket
from overair.server.listeners.demultiplexer import HTTP_ALPN, speak_http
from overair.server.listeners.http import HttpService, PlainHttpListener
from overair.server.listeners.tls_context import ClientCertificate, tls_context

ANSWER = b"{}"
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def answer(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


def self_signed() -> tuple[str, Redacted[bytes]]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), Redacted(pem)


async def serve(ca_file: Path, tls_port: int, plain_port: int) -> None:
    certificate_pem, key_pem = self_signed()
    ca_file.write_text(certificate_pem)
    service = HttpService(answer)
    service.start()
    context = tls_context(certificate_pem, key_pem, client_certificate=ClientCertificate.NOT_ASKED, alpn=HTTP_ALPN)
    listener = TlsListener(open_socket("127.0.0.1", tls_port), context, speak_http(service))
    listener.start()
    await PlainHttpListener(open_socket("127.0.0.1", plain_port), service).start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await listener.stop_accepting()
    await listener.close()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
