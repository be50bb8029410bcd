"""Refusals as each protocol tells them: error shapes, codes, statuses, request ids (wire reference §10.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from overair.server.aws_protocol.http_binding import HeaderPairs, Outgoing, header_bytes
from overair.server.aws_protocol.models import ServiceModel
from overair.server.aws_protocol.xml_documents import escape
from overair.server.error_codes import HTTP_STATUSES

_MESSAGE_LENGTH_MAX: Final = 2_048
_BODILESS: Final = frozenset({204, 304})


def error_answer(
    model: ServiceModel, *, code: str, message: str, details: Mapping[str, object], request_id: str, head: bool
) -> Outgoing:
    """One refusal, ready to be sent; ``head`` says that the request's method allows no body in the answer."""
    message = message[:_MESSAGE_LENGTH_MAX]
    status = model.error_statuses.get(code) or HTTP_STATUSES.get(code, 400)
    if model.protocol == "rest-xml":
        outgoing = _rest_xml(status, code, message, details, request_id)
    elif model.protocol == "query":
        outgoing = _query(model, status, code, message, request_id)
    elif model.protocol == "json":
        # This protocol knows the client's faults by one status, whatever their code (but for a body that wasn't read).
        outgoing = _json(model, status if status >= 500 or status == 413 else 400, code, message, details)
    else:
        outgoing = _json(model, status, code, message, details)
    if head or status in _BODILESS:
        outgoing.body = b""
        outgoing.headers = [(name, value) for name, value in outgoing.headers if name != b"content-type"]
    return outgoing


def request_id_headers(model: ServiceModel, request_id: str) -> HeaderPairs:
    """The headers that carry the request's id."""
    encoded = request_id.encode("ascii")
    if model.protocol == "rest-xml":
        return [(b"x-amz-request-id", encoded), (b"x-amz-id-2", encoded)]
    return [(b"x-amzn-requestid", encoded)]


def _json(model: ServiceModel, status: int, code: str, message: str, details: Mapping[str, object]) -> Outgoing:
    body: dict[str, Any] = {}
    shape = model.shapes.get(model.error_shapes.get(code, ""), {})
    message_name = "message"
    for name, member in shape.get("members", {}).items():
        wire = member.get("locationName", name)
        if name.lower() == "message":
            message_name = wire
        elif name in details:
            body[wire] = details[name]
    if model.protocol == "json":
        body["__type"] = code
    body[message_name] = message
    headers: HeaderPairs = [
        (b"content-type", b"application/json" if model.protocol == "rest-json" else b"application/x-amz-json-1.1"),
        (b"x-amzn-errortype", header_bytes(code)),
    ]
    return Outgoing(status, headers, msgspec.json.encode(body, enc_hook=str))


def _query(model: ServiceModel, status: int, code: str, message: str, request_id: str) -> Outgoing:
    fault = "Receiver" if status >= 500 else "Sender"
    text = (
        f'<ErrorResponse xmlns="{escape(model.xml_namespace)}"><Error><Type>{fault}</Type><Code>{escape(code)}</Code>'
        f"<Message>{_xml_text(message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return Outgoing(status, [(b"content-type", b"text/xml;charset=utf-8")], text.encode("utf-8", "replace"))


def _rest_xml(status: int, code: str, message: str, details: Mapping[str, object], request_id: str) -> Outgoing:
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n<Error>']
    parts.append(f"<Code>{escape(code)}</Code><Message>{_xml_text(message)}</Message>")
    headers: HeaderPairs = [(b"content-type", b"application/xml")]
    for name, value in details.items():
        if name.startswith("x-amz-"):
            headers.append((header_bytes(name), header_bytes(str(value))))
        elif name.isascii() and name.isalnum() and isinstance(value, (str, int)):
            parts.append(f"<{name}>{_xml_text(str(value))}</{name}>")
    parts.append(f"<RequestId>{request_id}</RequestId><HostId>{request_id}</HostId></Error>")
    return Outgoing(status, headers, "".join(parts).encode("utf-8", "replace"))


def _xml_text(text: str) -> str:
    """For people: characters that no XML document may hold, even as references, are shown as a replacement."""
    return escape("".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text))
