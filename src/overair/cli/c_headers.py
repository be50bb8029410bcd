"""A device's identity as the C headers that FreeRTOS' demos compile in. Pure: values come in, file texts go out.

The names are those of the public demo projects: ``demos/include`` of amazon-freertos (2018 to 2022), and ``demo_config.h`` of
the demos that came after it. Everything is a macro: that fits where a demo has an array, too, and warns of nothing that isn't
used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KEYS_HEADER: Final = "aws_clientcredential_keys.h"
"""Holds the private key; a folder that has it belongs to a device already."""
_WIFI: Final = (
    ("clientcredentialWIFI_SSID", '""'),
    ("clientcredentialWIFI_PASSWORD", '""'),
    ("clientcredentialWIFI_SECURITY", "eWiFiSecurityWPA2"),
)
_GREENGRASS_PORT: Final = 8443
_ROOTS: Final = ("tlsVERISIGN", "tlsATS1", "tlsSTARFIELD")
"""Demos choose one by the endpoint's name; here each is the server's own authority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CIdentity:
    """What is written into the headers. PEM texts are ASCII."""

    thing: str
    endpoint: str
    port: int
    root_ca_pem: str
    certificate_pem: str
    private_key_pem: str
    signer_pem: str


def headers_for(identity: CIdentity) -> Mapping[str, str]:
    """File name → text."""
    root = _pem(identity.root_ca_pem)
    return {
        "aws_clientcredential.h": _header(
            "AWS_CLIENTCREDENTIAL_H",
            "Where the server is, and as which thing this device speaks to it. Fill in the Wi-Fi network if there is one.",
            ("clientcredentialMQTT_BROKER_ENDPOINT", _text(identity.endpoint)),
            ("clientcredentialIOT_THING_NAME", _text(identity.thing)),
            ("clientcredentialMQTT_BROKER_PORT", str(identity.port)),
            ("clientcredentialGREENGRASS_DISCOVERY_PORT", str(_GREENGRASS_PORT)),
            *_WIFI,
        ),
        KEYS_HEADER: _header(
            "AWS_CLIENTCREDENTIAL_KEYS_H",
            "SECRET: the device's own key and certificate. Whoever has this file is the device.",
            ("keyCLIENT_CERTIFICATE_PEM", _pem(identity.certificate_pem)),
            ("keyJITR_DEVICE_CERTIFICATE_AUTHORITY_PEM", '""'),
            ("keyCLIENT_PRIVATE_KEY_PEM", _pem(identity.private_key_pem)),
            ("keyCA_ROOT_CERT_PEM", root),
        ),
        "aws_ota_codesigner_certificate.h": _header(
            "AWS_OTA_CODESIGNER_CERTIFICATE_H",
            "Whose signature an image must have.",
            ("otapalconfigCODE_SIGNING_CERTIFICATE", _pem(identity.signer_pem)),
            ("signingcredentialSIGNING_CERTIFICATE_PEM", "otapalconfigCODE_SIGNING_CERTIFICATE"),
        ),
        "iot_default_root_certificates.h": _header(
            "IOT_DEFAULT_ROOT_CERTIFICATES_H",
            "Whom the server's certificate must come from, under each of the names that demos look for.",
            *(
                macro
                for name in _ROOTS
                for macro in (
                    (f"{name}_ROOT_CERTIFICATE_PEM", root if name == _ROOTS[0] else f"{_ROOTS[0]}_ROOT_CERTIFICATE_PEM"),
                    (f"{name}_ROOT_CERTIFICATE_LENGTH", f"( sizeof( {name}_ROOT_CERTIFICATE_PEM ) )"),
                )
            ),
        ),
        "overair_demo_config.h": _header(
            "OVERAIR_DEMO_CONFIG_H",
            "The same under the names of newer demos: include it at the end of demo_config.h.",
            *_undefined("democonfigMQTT_BROKER_ENDPOINT", "clientcredentialMQTT_BROKER_ENDPOINT"),
            *_undefined("democonfigMQTT_BROKER_PORT", "clientcredentialMQTT_BROKER_PORT"),
            *_undefined("democonfigCLIENT_IDENTIFIER", "clientcredentialIOT_THING_NAME"),
            *_undefined("democonfigROOT_CA_PEM", "tlsATS1_ROOT_CERTIFICATE_PEM"),
            *_undefined("democonfigCLIENT_CERTIFICATE_PEM", "keyCLIENT_CERTIFICATE_PEM"),
            *_undefined("democonfigCLIENT_PRIVATE_KEY_PEM", "keyCLIENT_PRIVATE_KEY_PEM"),
            includes=("aws_clientcredential.h", KEYS_HEADER, "iot_default_root_certificates.h"),
        ),
    }


def _header(guard: str, says: str, *macros: tuple[str, str], includes: tuple[str, ...] = ()) -> str:
    lines = [
        f"/* {says}",
        " * Written by `overair device enroll --for freertos`. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
    ]
    lines += [f'#include "{name}"' for name in includes]
    lines += [""] if includes else []
    for name, value in macros:
        lines.append(f"#define {name} {value}" if value else f"#undef {name}")
    return "\n".join([*lines, "", f"#endif /* {guard} */", ""])


def _undefined(name: str, value: str) -> tuple[tuple[str, str], ...]:
    """In place of whatever a demo has there."""
    return (name, ""), (name, value)


def _text(text: str) -> str:
    """A string literal. What goes in is a host, a thing name or PEM: nothing that C reads otherwise."""
    if not text.isascii() or not text.isprintable() or '"' in text or "\\" in text or "?" in text:
        raise ValueError(f"{text[:80]!r} can't stand in a C string as it is.")
    return f'"{text}"'


def _pem(pem: str) -> str:
    """Line by line, each with its line break, as the demos want it."""
    lines = [line for line in pem.strip().splitlines() if line]
    return " \\\n".join(["", *(f'    {_text(line)[:-1]}\\n"' for line in lines)]).removeprefix(" ")
