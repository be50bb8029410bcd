"""The plain REST engine: operators' routes, devices' routes, bearer tokens at ``/oauth2/token``.

It knows no room. A room's ``operator_rest_api.py`` marks methods with ``@route``, its ``device_api.py`` with ``@device_route``
(both in ``operations.py``); the composition root registers the objects with ``RestDoor.add`` and ``DeviceDoor.add``.
"""
