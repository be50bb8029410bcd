"""``overair device enroll --for freertos``: headers that a C compiler takes, and whose macros are what was enrolled."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from overair.cli.c_headers import CIdentity, headers_for
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.main import app
from tests.support.mqtt_over_tls import device_context
from tests.support.server_process import ServerProcess

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
DEMO = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef enum { eWiFiSecurityOpen, eWiFiSecurityWPA2 } WIFISecurity_t;
#define democonfigROOT_CA_PEM "what the demo has there"
#include "aws_clientcredential.h"
#include "aws_clientcredential_keys.h"
#include "aws_ota_codesigner_certificate.h"
#include "iot_default_root_certificates.h"
#include "overair_demo_config.h"

static const char codeSigningCertificatePEM[] = otapalconfigCODE_SIGNING_CERTIFICATE;

static void show( const char * name, const char * value )
{
    printf( "%s\\n%s\\f\\n", name, value );
}

int main( void )
{
    WIFISecurity_t security = clientcredentialWIFI_SECURITY;
    uint16_t port = clientcredentialMQTT_BROKER_PORT;
    if( security != eWiFiSecurityWPA2 || port != democonfigMQTT_BROKER_PORT ) return 1;
    if( sizeof( signingcredentialSIGNING_CERTIFICATE_PEM ) != sizeof( codeSigningCertificatePEM ) ) return 2;
    if( tlsSTARFIELD_ROOT_CERTIFICATE_LENGTH != strlen( democonfigROOT_CA_PEM ) + 1 ) return 3;
    if( strlen( clientcredentialWIFI_SSID ) + strlen( clientcredentialWIFI_PASSWORD ) ) return 4;
    show( "endpoint", democonfigMQTT_BROKER_ENDPOINT );
    show( "thing", democonfigCLIENT_IDENTIFIER );
    show( "root", democonfigROOT_CA_PEM );
    show( "root again", keyCA_ROOT_CERT_PEM );
    show( "certificate", democonfigCLIENT_CERTIFICATE_PEM );
    show( "key", democonfigCLIENT_PRIVATE_KEY_PEM );
    show( "signer", codeSigningCertificatePEM );
    printf( "port\\n%u\\f\\n", ( unsigned ) port );
    return keyJITR_DEVICE_CERTIFICATE_AUTHORITY_PEM[ 0 ];
}
"""


def macros_of(text: str) -> dict[str, str]:
    """String macros, as a C compiler would join them."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r'^#define (\w+)((?:\s*"[^"]*")+)\s*$', joined, re.MULTILINE)
    return {name: "".join(re.findall(r'"([^"]*)"', pieces)).replace("\\n", "\n") for name, pieces in found}


@pytest.fixture(scope="module")
def enrolled(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    thing, out = f"mcu-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("mcu") / "include"
    arguments = ["device", "enroll", thing, "--for", "freertos", "--out", str(out), "--json", "--data", str(server.data)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.exception, result.output)
    assert sorted(json.loads(result.stdout)["headers"]) == sorted(path.name for path in out.iterdir())
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, CommandEnded)
    assert again.exception.code is ExitCode.USAGE, "whoever has a key keeps it"
    return thing, out


def test_the_macros_are_the_identity_that_was_enrolled(server: ServerProcess, enrolled: tuple[str, Path]) -> None:
    thing, out = enrolled
    where = macros_of((out / "aws_clientcredential.h").read_text())
    assert where["clientcredentialIOT_THING_NAME"] == thing
    assert where["clientcredentialMQTT_BROKER_ENDPOINT"] == server.endpoints["mqtt_host"]
    assert f"PORT {server.endpoints['mqtt_port']}\n" in (out / "aws_clientcredential.h").read_text()
    keys = macros_of((out / "aws_clientcredential_keys.h").read_text())
    certificate = x509.load_pem_x509_certificate(keys["keyCLIENT_CERTIFICATE_PEM"].encode())
    key = serialization.load_pem_private_key(keys["keyCLIENT_PRIVATE_KEY_PEM"].encode(), None)
    assert key.public_key() == certificate.public_key()
    signer = macros_of((out / "aws_ota_codesigner_certificate.h").read_text())["otapalconfigCODE_SIGNING_CERTIFICATE"]
    assert signer.strip() == Path(server.endpoints["signer_certificate_file"]).read_text().strip()
    assert stat.S_IMODE((out / "aws_clientcredential_keys.h").stat().st_mode) == 0o600


def test_what_the_headers_say_opens_a_connection(server: ServerProcess, enrolled: tuple[str, Path], tmp_path: Path) -> None:
    _, out = enrolled
    keys = macros_of((out / "aws_clientcredential_keys.h").read_text())
    for name, macro in (("c", "keyCLIENT_CERTIFICATE_PEM"), ("k", "keyCLIENT_PRIVATE_KEY_PEM"), ("a", "keyCA_ROOT_CERT_PEM")):
        (tmp_path / name).write_text(keys[macro])
    import socket

    context = device_context(str(tmp_path / "a"), tmp_path / "c", tmp_path / "k")
    at = server.endpoints
    with (
        socket.create_connection((at["mqtt_host"], at["mqtt_port"]), 20) as plain,
        context.wrap_socket(plain, server_hostname=at["mqtt_host"]) as tls,
    ):
        assert tls.version() in ("TLSv1.2", "TLSv1.3")


def test_a_c_compiler_takes_the_headers_and_reads_the_same(
    server: ServerProcess, enrolled: tuple[str, Path], tmp_path: Path
) -> None:
    if COMPILER is None:
        pytest.skip("not run: there is no C compiler on this machine")
    thing, out = enrolled
    (tmp_path / "demo.c").write_text(DEMO)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", str(out)]
    command = [COMPILER, *flags, "-o", str(tmp_path / "demo"), str(tmp_path / "demo.c")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr
    shown = subprocess.run([str(tmp_path / "demo")], capture_output=True, text=True, timeout=20, check=True).stdout
    told = dict(part.split("\n", 1) for part in shown.split("\f\n") if part)
    keys = macros_of((out / "aws_clientcredential_keys.h").read_text())
    assert (told["thing"], told["endpoint"]) == (thing, server.endpoints["mqtt_host"])
    assert told["port"] == str(server.endpoints["mqtt_port"])
    assert told["certificate"] == keys["keyCLIENT_CERTIFICATE_PEM"]
    assert told["key"] == keys["keyCLIENT_PRIVATE_KEY_PEM"]
    assert told["root"] == told["root again"] == keys["keyCA_ROOT_CERT_PEM"]
    assert told["signer"].strip() == Path(server.endpoints["signer_certificate_file"]).read_text().strip()


@pytest.mark.parametrize("endpoint", ['ho"st', "ho\\st", "ho\nst", "h??/st"])
def test_what_a_c_string_would_read_otherwise_is_refused(endpoint: str) -> None:
    pem = "-----BEGIN X-----\nAAAA\n-----END X-----\n"
    with pytest.raises(ValueError, match="C string"):
        headers_for(
            CIdentity(
                thing="t",
                endpoint=endpoint,
                port=8883,
                root_ca_pem=pem,
                certificate_pem=pem,
                private_key_pem=pem,
                signer_pem=pem,
            )
        )
