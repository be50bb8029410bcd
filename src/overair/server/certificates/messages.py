"""What operators are shown of certificates, for each list that has them."""

from __future__ import annotations

from overair.basics.arn import Place
from overair.server.aws_protocol.operations import Members
from overair.server.certificates.model import CertificateSummary


def listed(place: Place, certificate: CertificateSummary) -> Members:
    """One row of ListCertificates and of ListCertificatesByCA."""
    return {
        "certificateArn": place.iot("cert", certificate.id),
        "certificateId": certificate.id,
        "status": certificate.status.value,
        "certificateMode": certificate.mode.value,
        "creationDate": certificate.created_at,
    }
