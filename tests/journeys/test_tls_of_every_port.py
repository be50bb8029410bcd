"""A TLS probe of each port of a running server: what it speaks, what it turns away, and which certificates get nowhere."""

from __future__ import annotations

import json
import socket
import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from OpenSSL import SSL

from overair.wire.mqtt.packets import Connack
from tests.support import pki, tls_hello
from tests.support.mqtt_over_tls import MqttOverTls
from tests.support.pki import Held
from tests.support.server_process import ServerProcess
from tests.support.tls_hello import TLS_1_2, Alert, Closed, ServerHello, Version, ask, extension, hello

PORTS = ["operator", "mqtt", "device"]
ECDHE_WITH_AEAD = {0xC02B, 0xC02C, 0xCCA9}
"""With ECDSA, since the server's certificate has such a key: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305."""
OF_TLS_1_3 = {0x1301, 0x1302, 0x1303}
HANDSHAKE_FAILURE, ILLEGAL_PARAMETER, PROTOCOL_VERSION = Alert(2, 40), Alert(2, 47), Alert(2, 70)


def port_of(server: ServerProcess, name: str) -> int:
    at = server.endpoints
    port = at["mqtt_port"] if name == "mqtt" else urlsplit(at[f"{name}_url"]).port
    assert port
    return int(port)


@pytest.fixture(params=PORTS)
def port(server: ServerProcess, request: pytest.FixtureRequest) -> int:
    return port_of(server, request.param)


# What is spoken -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [tls_hello.SSL_3_0, tls_hello.TLS_1_0, tls_hello.TLS_1_1])
def test_an_old_protocol_is_refused_as_such(port: int, version: Version) -> None:
    old_suites = [0x002F, 0x0035, 0x000A, 0xC009, 0xC00A, 0xC013, 0xC014]
    assert ask(port, hello([*old_suites, *ECDHE_WITH_AEAD], version=version)) == PROTOCOL_VERSION


def test_ssl_2_is_not_even_answered(port: int) -> None:
    assert ask(port, tls_hello.hello_of_ssl_2()) in (Closed(), PROTOCOL_VERSION)


def test_of_all_numbers_that_a_suite_may_have_only_those_with_ecdhe_and_aead_are_taken(port: int) -> None:
    """So neither NULL, export, RC4, 3DES, CBC nor RSA's key exchange, nor a Diffie-Hellman group of any size."""
    others = [suite for suite in range(1 << 16) if suite not in ECDHE_WITH_AEAD | OF_TLS_1_3 | tls_hello.SIGNALLING]
    for at in range(0, len(others), 7000):  # OpenSSL reads no longer a ClientHello
        assert ask(port, hello(others[at : at + 7000])) == HANDSHAKE_FAILURE
    for suite in ECDHE_WITH_AEAD:
        answer = ask(port, hello([*others[:5000], suite]))
        assert isinstance(answer, ServerHello)
        assert (answer.version, answer.suite) == (TLS_1_2, suite)
        # Who speaks only 1.2 is told that he was answered so by a server of 1.3: an attacker in between can't hide it.
        assert answer.random.endswith(b"DOWNGRD\x01")


@pytest.mark.parametrize(
    "groups",
    [[1, 2, 3, 15, 16, 17], [19, 20, 21], [22], [26, 27, 28], [256, 257, 258]],
    ids=["below 224 bits", "192 and 224 bits", "secp256k1", "brainpool", "finite fields"],
)
def test_other_curves_than_those_of_today_are_refused(port: int, groups: list[int]) -> None:
    assert ask(port, hello(sorted(ECDHE_WITH_AEAD), groups=groups)) == HANDSHAKE_FAILURE


@pytest.mark.parametrize("signatures", [[0x0203], [0x0201, 0x0202], [0x0101, 0x0103]], ids=["SHA-1", "RSA, DSA", "MD5"])
def test_no_handshake_is_signed_over_a_broken_hash(port: int, signatures: list[int]) -> None:
    assert ask(port, hello(sorted(ECDHE_WITH_AEAD), signatures=signatures)) == HANDSHAKE_FAILURE


def test_nothing_is_compressed_and_no_old_extension_is_taken_up(port: int) -> None:
    heartbeat, ticket, npn = extension(15, b"\x01"), extension(35, b""), extension(13172, b"")
    answer = ask(port, hello(sorted(ECDHE_WITH_AEAD), compressions=b"\x01\x00", more=heartbeat + ticket + npn))
    assert isinstance(answer, ServerHello)
    assert answer.compression == 0
    assert not answer.extensions & {15, 35, 13172}
    assert 0xFF01 in answer.extensions
    assert ask(port, hello(sorted(ECDHE_WITH_AEAD), compressions=b"\x01")) == ILLEGAL_PARAMETER


def test_nobody_renegotiates(port: int) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(0)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        plain.setblocking(True)
        connection = SSL.Connection(context, plain)
        connection.set_connect_state()
        try:
            connection.do_handshake()
        except SSL.Error:
            return  # a port that demands a certificate: it never came to a second handshake
        assert connection.renegotiate()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            connection.do_handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["operator", "device"])
def test_todays_versions_are_spoken_with_the_servers_own_certificate(
    server: ServerProcess, name: str, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    context.minimum_version = context.maximum_version = version
    with shaken(port_of(server, name), context) as client:
        suite = client.cipher()
        assert suite is not None
        assert "GCM" in suite[0] or "CHACHA20" in suite[0]
        assert client.compression() is None


HTTP, MQTT = {"http/1.1", "x-amzn-http-ca"}, {"mqtt", "x-amzn-mqtt-ca"}
SPOKEN = {"operator": HTTP, "mqtt": MQTT, "device": HTTP | MQTT}


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("offered", ["x-amzn-mqtt-ca", "mqtt", "x-amzn-http-ca", "http/1.1", "h2", "ssh", "MQTT", "x" * 255])
def test_each_port_chooses_the_protocols_that_it_speaks_and_no_others(server: ServerProcess, name: str, offered: str) -> None:
    # 1.2 shows the choice before anybody is asked for a certificate.
    answer = ask(port_of(server, name), hello(sorted(ECDHE_WITH_AEAD), more=alpn(offered)))
    assert isinstance(answer, ServerHello)
    assert (0x0010 in answer.extensions) is (offered in SPOKEN[name])


def alpn(*names: str) -> bytes:
    listed = b"".join(bytes([len(name)]) + name.encode() for name in names)
    return extension(0x0010, len(listed).to_bytes(2, "big") + listed)


def test_whoever_speaks_in_the_clear_is_not_answered_in_the_clear(port: int) -> None:
    for said in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", bytes.fromhex("100d00044d5154540402003c000178"), b"\0" * 64):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
            plain.sendall(said)
            plain.shutdown(socket.SHUT_WR)
            heard = b"".join(takewhile(bool, iter(lambda: _received(plain), b"")))
            assert heard[:1] in (b"", b"\x15"), heard  # nothing, or a TLS alert


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b""


def test_the_server_listens_nowhere_else_and_in_the_clear_on_loopback_alone(server: ServerProcess) -> None:
    expected = {port_of(server, name) for name in PORTS}
    plain = urlsplit(server.endpoints["plain_http_url"])
    assert plain.hostname == "127.0.0.1"
    assert {port for address, port in listening(server) if port != plain.port} == expected
    assert {address for address, port in listening(server) if port == plain.port} == {"0100007F"}


def listening(server: ServerProcess) -> set[tuple[str, int]]:
    """(address in hexadecimal, port) of each socket that the server's process listens on, as the system knows them."""
    assert server.process is not None
    of_process = Path(f"/proc/{server.process.pid}")
    if not of_process.is_dir():
        pytest.skip("not run: only Linux tells which sockets a process has")
    inodes = {str(link.readlink()) for link in (of_process / "fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (of_process / "net" / table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in inodes:
                address, _, port = columns[1].rpartition(":")
                found.add((address, int(port, 16)))
    return found


def shaken(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=30), server_hostname="localhost")


# Who gets in ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A server that trusts one fleet's authority, and a device of it that is in."""

    server: ServerProcess
    root: Held
    authority: str
    device: Held
    folder: Path

    def name_of(self, leaf: Held) -> str:
        return str(leaf.certificate.subject.rfc4514_string().partition("CN=")[2])

    def context(self, leaf: Held) -> ssl.SSLContext:
        file = self.folder / f"{uuid.uuid4().hex}.pem"
        file.write_text(leaf.key_pem + leaf.chain_pem)
        context = ssl.create_default_context(cafile=self.server.endpoints["ca_file"])
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # else this side would refuse to show what is weak
        context.load_cert_chain(file)
        return context

    def code(self, leaf: Held) -> str | None:
        """What the device port answers over HTTPS: None, or by which name it refuses."""
        with shaken(port_of(self.server, "device"), self.context(leaf)) as client:
            client.sendall(b"GET /director/1.root.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(takewhile(bool, iter(lambda: client.recv(65536), b"")))
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200"):
            return None
        assert head.startswith((b"HTTP/1.1 401", b"HTTP/1.1 403")), head
        return str(json.loads(body)["code"])

    def connack(self, leaf: Held) -> int | None:
        at = self.server.endpoints
        connection = MqttOverTls(at["mqtt_host"], at["mqtt_port"], self.context(leaf), self.name_of(leaf))
        connection.close()
        return connection.connack.return_code if isinstance(connection.connack, Connack) else None


def fresh() -> str:
    return f"vin-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def world(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = pki.authority(f"Fleet root {uuid.uuid4().hex[:8]}", key=pki.rsa_key(2048))
    at = server.endpoints
    policy = f"probe-{uuid.uuid4().hex[:8]}"
    allowed = {
        "Effect": "Allow",
        "Action": ["iot:Connect", "overair:*"],
        "Resource": f"arn:aws:iot:{at['region']}:{at['account']}:*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    server.client("iot").create_policy(policyName=policy, policyDocument=document)
    told = server.client("overair").register_fleet_certificate_authority(certificatePem=root.pem, rule={"policyName": policy})
    authority = told["authorities"][0]["authorityId"] if "authorities" in told else told["authorityId"]
    return World(server, root, authority, pki.device(root, fresh()), tmp_path_factory.mktemp("probe"))


def test_a_device_of_the_fleet_is_let_in_over_both_wires(world: World) -> None:
    # Else every refusal below would prove nothing.
    assert world.connack(world.device) == 0
    assert world.code(world.device) is None


NOW = datetime.now(UTC)
KEPT_OUT: dict[str, tuple[str, Callable[[World], Held]]] = {
    "another CA": ("foreign_certificate_authority", lambda w: pki.device(pki.authority("Another root"), fresh())),
    "another CA of the same name": (
        "foreign_certificate_authority",
        lambda w: pki.device(pki.authority(w.name_of(w.root)), fresh()),
    ),
    "self-signed": ("foreign_certificate_authority", lambda w: pki.device(None, fresh())),
    "the name of a device that is in, from another CA": (
        "foreign_certificate_authority",
        lambda w: pki.device(pki.authority("Another root"), w.name_of(w.device)),
    ),
    "the name of a device that is in, with another key": (
        "device_key_mismatch",
        lambda w: pki.device(w.root, w.name_of(w.device)),
    ),
    "expired": ("certificate_expired", lambda w: pki.device(w.root, fresh(), dies=NOW - timedelta(hours=1))),
    "not valid yet": ("certificate_not_yet_valid", lambda w: pki.device(w.root, fresh(), born=NOW + timedelta(hours=1))),
    "without clientAuth": ("certificate_wrong_purpose", lambda w: pki.device(w.root, fresh(), purposes=pki.SERVER)),
    "without digitalSignature": (
        "certificate_wrong_purpose",
        lambda w: pki.device(w.root, fresh(), key_usage=pki.usage(key_cert_sign=True)),
    ),
    "an authority's own": ("certificate_wrong_purpose", lambda w: w.root),
    "below an issuer that is no authority": (
        "certificate_chain_invalid",
        lambda w: pki.device(pki.authority("No authority", w.root, ca=False), fresh()),
    ),
    "signed over SHA-1": ("foreign_certificate_authority", lambda w: pki.weakly_signed(pki.device(w.root, fresh()), "sha1")),
    "signed over MD5": ("foreign_certificate_authority", lambda w: pki.weakly_signed(pki.device(w.root, fresh()), "md5")),
    "an RSA key of 1024 bits": (
        "certificate_chain_invalid",
        lambda w: pki.device(w.root, fresh(), key=pki.rsa_key(1024)),
    ),
}


@pytest.mark.parametrize("kind", KEPT_OUT)
def test_a_certificate_that_is_not_fit_gets_nowhere_and_is_told_why(world: World, kind: str) -> None:
    code, make = KEPT_OUT[kind]
    leaf = make(world)
    assert world.code(leaf) == code
    assert world.connack(leaf) in (None, 5)


def registered(world: World, leaf: Held, status: str = "ACTIVE") -> str:
    made = world.server.client("iot").register_certificate_without_ca(certificatePem=leaf.pem, status=status)
    return str(made["certificateId"])


REGISTERED: dict[str, tuple[str, Callable[[World, Held], Any]]] = {
    "revoked by UpdateCertificate": (
        "certificate_revoked",
        lambda w, leaf: w.server.client("iot").update_certificate(certificateId=registered(w, leaf), newStatus="REVOKED"),
    ),
    "deactivated by UpdateCertificate": (
        "certificate_inactive",
        lambda w, leaf: w.server.client("iot").update_certificate(certificateId=registered(w, leaf), newStatus="INACTIVE"),
    ),
    "revoked by its authority's list": (
        "certificate_revoked",
        lambda w, leaf: w.server.client("overair").put_fleet_revocation_list(
            authorityId=w.authority, revocationListPem=pki.revocation_list(w.root, leaf)
        ),
    ),
}


@pytest.mark.parametrize("kind", REGISTERED)
def test_a_certificate_that_was_taken_back_gets_nowhere_and_is_told_why(world: World, kind: str) -> None:
    code, take_back = REGISTERED[kind]
    leaf = pki.device(world.root, fresh())
    take_back(world, leaf)
    assert world.code(leaf) == code
    assert world.connack(leaf) in (None, 5)


WEAK: dict[str, Callable[[World], Held]] = {
    "an RSA key of 1024 bits": lambda w: pki.device(None, fresh(), key=pki.rsa_key(1024)),
    "signed over SHA-1": lambda w: pki.weakly_signed(pki.device(w.root, fresh()), "sha1"),
    "signed over MD5": lambda w: pki.weakly_signed(pki.device(w.root, fresh()), "md5"),
}


@pytest.mark.parametrize("kind", WEAK)
def test_what_is_weak_can_not_even_be_registered_by_an_operator(world: World, kind: str) -> None:
    iot = world.server.client("iot")
    with pytest.raises(iot.exceptions.CertificateValidationException) as caught:
        registered(world, WEAK[kind](world))
    assert ("SHA-256" if "signed" in kind else "2048") in caught.value.response["message"]


def connects_with_mqtt(port: int, context: ssl.SSLContext) -> bytes:
    """What the server says to a CONNECT; nothing where it hangs up."""
    try:
        with shaken(port, context) as client:
            client.sendall(bytes.fromhex("100d00044d5154540402003c000178"))
            return client.recv(10)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_a_certificate_mqtt_ends_in_the_handshake_and_https_says_what_is_missing(
    server: ServerProcess, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    context.minimum_version = context.maximum_version = version
    assert connects_with_mqtt(port_of(server, "mqtt"), context) == b""
    with shaken(port_of(server, "device"), context) as client:
        client.sendall(b"GET /director/root.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(takewhile(bool, iter(lambda: client.recv(65536), b"")))
    assert b"certificate_required" in answer
