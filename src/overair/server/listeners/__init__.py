"""Ports: accepting, TLS, and who speaks what after the handshake."""
