"""Many virtual devices in one process, for load and demonstrations: real identities, real connections, no disk."""
