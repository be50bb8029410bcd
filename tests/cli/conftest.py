from tests.support.server_fixtures import new_server, server

__all__ = ["new_server", "server"]
