"""What a port shows and asks for in its handshakes."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from overair.basics.redacted import Redacted

CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_MODE_RELEASE_BUFFERS: Final = 0x10
_OP_NO_RENEGOTIATION: Final = 0x40000000


class ClientCertificate(Enum):
    """What a port says about client certificates in its handshake."""

    NOT_ASKED = "not asked"
    ASKED = "asked"
    DEMANDED = "demanded"


def tls_context(
    certificate_pem: str, key_pem: Redacted[bytes], *, client_certificate: ClientCertificate, alpn: tuple[bytes, ...]
) -> SSL.Context:
    """A context for one port: TLS 1.2 and up, no session tickets, so that each connection proves its certificate anew.

    ``certificate_pem`` has the leaf first, then what is sent with it; ``alpn`` in the server's order of preference: a
    client that offers none of them, or no ALPN at all, is served without.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | _OP_NO_RENEGOTIATION)
    # TLS 1.3 then names sessions by ids into a cache, and there is no cache: nothing can be resumed.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(_MODE_RELEASE_BUFFERS)
    leaf, *issuers = x509.load_pem_x509_certificates(certificate_pem.encode("ascii"))
    context.use_certificate(leaf)
    for issuer in issuers:
        context.add_extra_chain_cert(issuer)
    key: Any = load_pem_private_key(key_pem.reveal(), password=None)
    context.use_privatekey(key)
    context.check_privatekey()
    if client_certificate is not ClientCertificate.NOT_ASKED:
        flags = SSL.VERIFY_PEER
        if client_certificate is ClientCertificate.DEMANDED:
            flags |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(flags, _accept_any)

    def choose(_connection: SSL.Connection, offered: list[bytes]) -> bytes | Any:
        return next((each for each in alpn if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    context.set_alpn_select_callback(choose)
    return context


def _accept_any(*_: object) -> bool:
    # The registry decides, not a trust store: a leaf of any issuer may be registered.
    return True
