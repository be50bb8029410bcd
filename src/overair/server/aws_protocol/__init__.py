"""The operator door's engine: routes, parses, validates, serialises and tells errors from botocore's service models.

It knows no room. A room's ``operator_api.py`` binds the meaning of operations with ``@operation``; ``app.py`` registers them.
"""
