"""How does a device get in? Shared credentials, fleet certificate authorities, first contact, blocking."""
