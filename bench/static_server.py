"""nginx with one static file over TLS: what a download costs a server that does nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.do_nothing import self_signed
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
        certificate_pem, key_pem = self_signed()  # a key of the kind that our own server has
        self.ca.write_text(certificate_pem)
        (folder / "server.key").write_bytes(key_pem.reveal())
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
