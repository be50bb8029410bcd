"""X.509: our own authorities and server certificate, the registry of device certificates, ACM's code-signing certificates."""
