"""nginx with one static file over TLS: what a download costs a server that does nothing else."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.processes import NotRun, Process, free_port

_PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class StaticServer:
    """One process, one worker, sendfile on, on loopback; its configuration, log and file stand in a folder of the run."""

    def __init__(self, work: Path, file: Path) -> None:
        program = shutil.which("nginx", path=_PATHS)
        if program is None:
            raise NotRun("nginx: the Debian package nginx-light isn't installed")
        folder = work / "nginx"
        (folder / "site").mkdir(parents=True)
        (folder / "site" / file.name).symlink_to(file)
        self.port = free_port()
        self.path = f"/{file.name}"
        self.ca = folder / "server.pem"
        _self_signed(self.ca, folder / "server.key")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMPORARY)
        configuration = folder / "nginx.conf"
        configuration.write_text(
            f"daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;\n"
            "events { worker_connections 256; }\n"
            f"http {{ access_log off; {temporary}\n"
            "sendfile on; tcp_nodelay on; keepalive_timeout 75; keepalive_requests 10000000;\n"
            f"server {{ listen 127.0.0.1:{self.port} ssl; root {folder}/site; ssl_protocols TLSv1.2 TLSv1.3;\n"
            f"ssl_certificate {self.ca}; ssl_certificate_key {folder}/server.key; }} }}\n"
        )
        command = [program, "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
        self._process = Process(command, folder / "nginx.log")

    def start(self) -> int:
        """Start it; its pid."""
        self._process.start()
        self._process.wait_for_port(self.port)
        return self._process.pid

    def stop(self) -> None:
        self._process.stop()


def _self_signed(certificate_file: Path, key_file: Path) -> None:
    """A certificate with a key of the kind that our own server has."""
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
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
