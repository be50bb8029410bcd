"""Service models as data: botocore's, read without importing botocore, and our own.

Only operations, shapes and metadata are kept; documentation is dropped. Gaps in the vendor's models are patched from
``model_patches.json``: a shape's traits set or, by null, removed; the names of S3's root elements, which its model lacks.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from overair.server.error_codes import Plane

SERVICES: Final = ("iot", "iot-data", "iot-jobs-data", "signer", "acm", "s3", "iam", "sts", "overair")
"""Directory names of the models, which are also the ``service`` of ``@operation`` and planes of the error table."""

MODELS_DIRECTORY: Final = Path(__file__).parent / "models"
"""Our own models in botocore's layout: what ``AWS_DATA_PATH`` names."""

assert set(SERVICES) <= set(get_args(Plane))


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationModel:
    """One operation as its model has it."""

    name: str
    method: str
    uri: str
    """The path with its labels and, in S3, the literal query that tells sub-resources apart."""
    status_code: int
    input_shape: str | None
    output_shape: str | None
    result_wrapper: str | None
    deprecated: bool
    errors: frozenset[str]
    """The error shapes that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceModel:
    """One service's model."""

    service: str
    signing_name: str
    """What stands in a credential's scope."""
    protocol: str
    """``rest-json``, ``json``, ``query`` or ``rest-xml``."""
    api_version: str
    target_prefix: str
    json_version: str
    xml_namespace: str
    operations: Mapping[str, OperationModel]
    shapes: Mapping[str, Mapping[str, Any]]
    error_statuses: Mapping[str, int]
    """HTTP status by error code."""
    error_shapes: Mapping[str, str]
    """Shape name by error code."""
    root_elements: Mapping[str, str]
    unwrapped: frozenset[str]
    """Operations whose single output member is the document itself."""


def botocore_data_directory() -> Path:
    """Where botocore keeps its models; found without running any of its code."""
    found = importlib.util.find_spec("botocore")
    if found is None or found.origin is None:
        raise RuntimeError("botocore is not installed; the server needs its service models.")
    return Path(found.origin).parent / "data"


def load_model(service: str) -> ServiceModel:
    """Read the newest version of one service's model."""
    directory = (MODELS_DIRECTORY if service == "overair" else botocore_data_directory()) / service
    newest = max(path for path in directory.iterdir() if path.is_dir())
    plain = newest / "service-2.json"
    content = plain.read_bytes() if plain.exists() else gzip.decompress((newest / "service-2.json.gz").read_bytes())
    return _model(service, msgspec.json.decode(content), _patches().get(service, {}))


def _patches() -> dict[str, Any]:
    patches: dict[str, Any] = msgspec.json.decode((Path(__file__).parent / "model_patches.json").read_bytes())
    return patches


def _model(service: str, raw: dict[str, Any], patch: Mapping[str, Any]) -> ServiceModel:
    metadata = raw["metadata"]
    shapes: dict[str, dict[str, Any]] = raw["shapes"]
    for name, traits in patch.get("shapes", {}).items():
        for trait, value in traits.items():
            if value is None:
                shapes[name].pop(trait, None)
            else:
                shapes[name][trait] = value
    namespace = metadata.get("xmlNamespace", "")
    if service == "s3":
        namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    error_statuses: dict[str, int] = {}
    error_shapes: dict[str, str] = {}
    for name, shape in shapes.items():
        if shape.get("exception"):
            error = shape.get("error", {})
            code = error.get("code", name)
            error_shapes[code] = name
            if "httpStatusCode" in error:
                error_statuses[code] = error["httpStatusCode"]
            elif shape.get("fault"):
                error_statuses[code] = 500
    return ServiceModel(
        service=service,
        signing_name=metadata.get("signingName", metadata["endpointPrefix"]),
        protocol=metadata["protocol"],
        api_version=metadata["apiVersion"],
        target_prefix=metadata.get("targetPrefix", ""),
        json_version=metadata.get("jsonVersion", "1.1"),
        xml_namespace=namespace,
        operations={name: _operation(name, operation) for name, operation in raw["operations"].items()},
        shapes=shapes,
        error_statuses=error_statuses,
        error_shapes=error_shapes,
        root_elements=patch.get("roots", {}),
        unwrapped=frozenset(patch.get("unwrapped", ())),
    )


def _operation(name: str, raw: Mapping[str, Any]) -> OperationModel:
    http = raw.get("http", {})
    output = raw.get("output")
    return OperationModel(
        name=name,
        method=http.get("method", "POST"),
        uri=http.get("requestUri", "/"),
        status_code=http.get("responseCode", 200),
        input_shape=raw["input"]["shape"] if "input" in raw else None,
        output_shape=output["shape"] if output else None,
        result_wrapper=output.get("resultWrapper") if output else None,
        deprecated=bool(raw.get("deprecated")),
        errors=frozenset(error["shape"] for error in raw.get("errors", ())),
    )
